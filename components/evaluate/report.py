"""report.html: one file that needs nothing else, for the Kubeflow UI, a mail or a phone."""

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from components.artifacts import Manifest
from components.tasks import Task

TEMPLATE = "report.html.j2"
GREY, BLUE, ORANGE = "#808080", "#3b82f6", "#f97316"  # legible on white and on black
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9.0,
}


def write_report(
    path: Path,
    task: Task,
    results: dict[str, Any],
    predicted: pa.Table,
    examples: dict[str, Any],
    errors: list[dict[str, Any]],
    training: list[dict[str, float]],
    model: Manifest,
    data: Manifest,
) -> None:
    """Write the report of one evaluation.

    Args:
        results: What metrics.json holds.
        errors: What errors.json holds.
        training: The lines of the model's metrics.jsonl.
        model, data: The manifests of the two inputs.
    """
    with matplotlib.rc_context(STYLE):
        figures = {"Training": _training_curve(training)}
        if task.is_regression:
            figures["Predicted against true score"] = _scatter(predicted)
        else:
            figures["Confidence"] = _confidence(predicted)
            figures["Calibration"] = _reliability(results["splits"])
        if any("robustness" in result for result in results["splits"].values()):
            figures["Under noise on the word embeddings"] = _noise(results["splits"])
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
    )
    path.write_text(
        environment.get_template(TEMPLATE).render(
            task=task,
            results=results,
            figures=figures,
            errors=errors,
            examples=list(zip(examples["rows"], examples["answers"], strict=True)),
            model=model,
            data=data,
            maxima={split: max(map(max, result.get("confusion_matrix", [[1]]))) for split, result in results["splits"].items()},
        )
    )


def _training_curve(training: list[dict[str, float]]) -> str:
    updates = [line["update"] for line in training]
    losses = np.array([line["loss"] for line in training])
    window = max(1, len(losses) // 30)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(updates, losses, color=BLUE, alpha=0.3, linewidth=0.8)
    axes.plot(updates[window - 1 :], smooth, color=BLUE, label="loss")
    axes.set_xlabel("update")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    rate = axes.twinx()
    rate.plot(updates, [line["learning_rate"] for line in training], color=ORANGE, linewidth=1)
    rate.set_ylabel("learning rate", color=ORANGE)
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    return _svg(figure)


def _scatter(predicted: pa.Table) -> str:
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.scatter(predicted["label"].to_numpy(), predicted["prediction"].to_numpy(), s=5, alpha=0.4, color=BLUE, linewidths=0)
    axes.set_xlabel("true score")
    axes.set_ylabel("predicted score")
    return _svg(figure)


def _confidence(predicted: pa.Table) -> str:
    """How sure the model is where it is right, and where it is wrong."""
    confidence = np.array([max(scores) for scores in predicted["scores"].to_pylist()])
    right = predicted["label"].to_numpy() == predicted["prediction"].to_numpy()
    figure = Figure(figsize=(6, 2.2), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(confidence.min(), 1, 26).tolist()
    parts = [confidence[right], confidence[~right]]
    axes.hist(parts, bins, stacked=True, color=[BLUE, ORANGE], label=["right", "wrong"])
    axes.set_xlabel("probability of the predicted label")
    axes.set_ylabel("examples")
    axes.legend(frameon=False)
    return _svg(figure)


def _reliability(splits: dict[str, Any]) -> str:
    """How often predictions of like confidence are right; on the diagonal a model is as sure as it should be."""
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for color, (split, result) in zip((BLUE, ORANGE), splits.items(), strict=False):
        bins = result["calibration"]["bins"]
        places = [bin["confidence"] for bin in bins]
        axes.plot(places, [bin["accuracy"] for bin in bins], "o-", color=color, markersize=4, label=split.replace("_", " "))
    axes.set_xlabel("probability of the predicted label")
    axes.set_ylabel("share that is right")
    axes.legend(frameon=False)
    return _svg(figure)


def _noise(splits: dict[str, Any]) -> str:
    """The score over the noise's length, as a share of the embeddings' own."""
    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    for style, (split, result) in zip(("-", "--"), splits.items(), strict=False):
        scores = result["robustness"]
        for kind, color in (("random", BLUE), ("adversarial", ORANGE)):
            points = {float(name.split()[1]): value for name, value in scores.items() if name.startswith(kind)}
            label = kind if len(splits) == 1 else f"{kind}, {split.replace('_', ' ')}"
            axes.plot([0.0, *points], [scores["clean"], *points.values()], f"o{style}", color=color, markersize=4, label=label)
    axes.set_xlabel("length of the noise (the embeddings' own = 1)")
    axes.set_ylabel("score")
    axes.legend(frameon=False)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
