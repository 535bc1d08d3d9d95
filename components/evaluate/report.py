"""report.html: one file that needs nothing else, for the Kubeflow UI, a mail or a phone."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from components.artifacts.folders import Manifest, asked
from components.evaluate.figures import Plot
from components.evaluate.wording import caveats
from components.tasks.table import Task

TEMPLATE = "report.html.j2"


def write_report(
    path: Path,
    task: Task,
    results: dict[str, Any],
    plots: list[Plot],
    examples: dict[str, Any],
    errors: list[dict[str, Any]],
    model: Manifest,
    data: Manifest,
) -> None:
    """Write the report of one evaluation.

    Args:
        results, examples, errors: What metrics.json, examples.json and errors.json hold.
        model, data: The manifests of the two inputs.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": lambda name: name.replace("_", " "), "number": lambda value: f"{value:.4f}"}
    path.write_text(
        environment.get_template(TEMPLATE).render(
            task=task,
            results=results,
            caveats=caveats(results),
            plots=plots,
            errors=errors,
            examples=list(zip(examples["rows"], examples["answers"], strict=True)),
            model=model,
            effective={**model["parameters"], **model["effective"]},
            asked=asked(model),
            data=data,
            maxima={split: max(map(max, result.get("confusion_matrix", [[1]]))) for split, result in results["splits"].items()},
        )
    )
