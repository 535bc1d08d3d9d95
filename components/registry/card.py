"""The model card: what a version is, how good, why it was let through, what it was made of."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from components.artifacts.folders import Manifest, asked
from components.registry.gate import Decision

TEMPLATE = "card.md.j2"
SHOWN = (
    "optimizer learning_rate warmup_updates num_epochs num_updates global_batch_size precision dropout weight_decay "
    "num_tokens num_parameters num_ranks seed"
).split()


def write_card(
    name: str, version: str, decision: Decision, results: dict[str, Any], evaluation: Manifest, examples: list[dict[str, str]]
) -> str:
    """Markdown, for the version's description, the Kubeflow UI and the run.

    Args:
        results: What metrics.json holds.
        evaluation: Its manifest, which holds those of the model and of the data.
        examples: Rows of raw text.
    """
    model, data = (evaluation["origins"][part]["manifest"] for part in ("model", "data"))
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True)
    texts = [next(iter(row.values())) for row in examples[:1]] if len(examples[0]) == 1 else examples[:1]
    training = {**model["parameters"], **model["effective"]}
    return environment.get_template(TEMPLATE).render(
        name=name,
        version=version,
        decision=decision,
        results=results,
        labels=results["labels"],
        base=training["model"],
        training=training,
        asked=asked(model),
        timings=model["timings"],
        shown={*SHOWN, *(key for key in training if key.startswith("perturbation_") and training["method"] != "plain")},
        max_length=data["parameters"]["max_length"],
        example=json.dumps(texts, ensure_ascii=False),
        digests={
            "raw files": data["inputs"]["source"],
            "tokenized data": data["digest"],
            "base model": model["inputs"]["model"],
            "model": model["digest"],
            "evaluation": evaluation["digest"],
            "code": model["code"],
        },
    )
