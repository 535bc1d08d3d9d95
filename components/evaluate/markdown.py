"""summary.md: the report in a screen of Markdown, for the Kubeflow UI and MLflow."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.artifacts.folders import Manifest
from components.evaluate.wording import caveats
from components.tasks.table import Task

NOISES = {"clean": "none", "typos": "typos in the text", "capitals": "text in capitals", "odd spaces": "odd spaces in the text"}
NUM_ERRORS = 5  # of each split
NUM_CHARACTERS = 300  # of a text


def write_summary(
    path: Path, task: Task, results: dict[str, Any], errors: list[dict[str, Any]], model: Manifest, data: Manifest
) -> None:
    """Write the summary of one evaluation.

    Args:
        results, errors: What metrics.json and errors.json hold.
        model, data: The manifests of the two inputs.
    """
    given = model["parameters"]
    low, high = results["interval"]
    rivals = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in results["baselines"].items())
    lines = [
        f"# {escape(task.name)}{' (generated data)' * bool(task.generated)}, fine-tuned from {escape(str(given['model']))}",
        *([escape(f"Generated data: {task.generated}. They say nothing of other texts.")] if task.generated else []),
        f"Score **{results['score']:.4f}**, 95 % interval {low:.4f} to {high:.4f}. Baselines: {rivals}.",
        *map(escape, caveats(results)),
        "## Metrics",
        _metrics(results["splits"]),
    ]
    noisy = {split: result["robustness"] for split, result in results["splits"].items() if "robustness" in result}
    if noisy:
        lines += ["## Score under noise", _noise(noisy)]
    if errors:
        lines += ["## Worst errors", _errors(errors)]
    made = f"{given['method']}, {given['optimizer']}, seed {given['seed']}; {results['recipe']}{_cost(results)}"
    lines += ["## Made from", f"{escape(made)}. Model `{model['digest'][:12]}`, data `{data['digest'][:12]}`."]
    path.write_text("\n\n".join(lines) + "\n")


def _cost(results: dict[str, Any]) -> str:
    """What was trained how, in numbers."""
    it, clock = results["training"], results["timings"]
    return (
        f"; learning rate {it['learning_rate']:.3g}, {it['num_updates']:,} updates of {it['global_batch_size']}, "
        f"{it['precision']}, {it['num_parameters']:,} parameters; {clock['seconds']:.1f} s on {clock['device']}, "
        f"{clock['samples_per_second']:.1f} samples/s"
    )


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in one line, within a table too."""
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, entity)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", " ".join(text.split()))


def _metrics(splits: dict[str, Any]) -> str:
    rows = []
    for split, result in splits.items():
        ranges = {name: f"{low:.4f} to {high:.4f}" for name, (low, high) in result["intervals"].items()}
        values = dict(result["metrics"])
        if "auc" in result:
            values |= {"area under ROC": result["auc"], "average precision": result["average_precision"]}
        if "calibration" in result:
            values["calibration error"] = result["calibration"]["ece"]
        name = f"{split}, {result['rows']} rows"
        rows += [(name, metric, f"{value:.4f}", ranges.get(metric, "")) for metric, value in values.items()]
    return _table(("split", "metric", "value", "95 % interval"), rows)


def _noise(noisy: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(noisy.values())))
    rows = [(NOISES.get(name, name), *(f"{scores[name]:.4f}" for scores in noisy.values())) for name in names]
    return _table(("noise", *noisy), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [[escape(cell.replace("_", " ")) for cell in row] for row in (head, *rows)]
    lines.insert(1, [":--" if place == 0 or name == "metric" else "--:" for place, name in enumerate(head)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _errors(errors: list[dict[str, Any]]) -> str:
    lines = []
    for split in dict.fromkeys(error["split"] for error in errors):
        for error in [error for error in errors if error["split"] == split][:NUM_ERRORS]:
            if "probability" in error:
                wrong = f"{error['label']}, answered {error['prediction']} with {error['probability']:.3f}"
            else:
                wrong = f"{error['label']:.3f}, answered {error['prediction']:.3f}"
            text = error["text"] if len(error["text"]) <= NUM_CHARACTERS else f"{error['text'][:NUM_CHARACTERS]} …"
            lines.append(f"- is {escape(wrong)}: {escape(text)}")  # a text at the start could be a list of its own
    return "\n".join(lines)
