"""The report's figures as SVG, drawn without a display: text takes the colour of the page that the figure is in."""

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from components.tasks.table import Task

TEXT = "#010203"  # matplotlib has no currentColor: this stands for it
GREY = "#808080"
COLORS = BLUE, ORANGE, *_ = ("#3b82f6", "#ea6a0c", "#16a34a", "#a855f7", "#db2777", "#0891b2")  # legible on white and on black
LINES = ("-", "--", ":", "-.")  # a split each
SIZE = (4.6, 3.4)  # inches; little is lost on the width of a phone
MAX_POINTS = 2000
MAX_LABELS = 8  # of a legend
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "font.size": 10.0,
}


@dataclass(frozen=True)
class Plot:
    name: str
    """Of its file, without .svg."""
    title: str
    meaning: str
    """How to read it, in a sentence."""
    svg: str


def draw(task: Task, results: dict[str, Any], predicted: pa.Table, training: list[dict[str, float]]) -> list[Plot]:
    """Every figure that applies to the task.

    Args:
        results: What metrics.json holds.
        predicted: What predictions.parquet holds.
        training: The lines of the model's metrics.jsonl.
    """
    with matplotlib.rc_context(STYLE):
        return list(_plots(task, results["splits"], predicted, training))


def write_figures(folder: Path, plots: list[Plot]) -> None:
    """NAME.svg each, on white: a file knows nothing of the page that will show it."""
    folder.mkdir()
    for plot in plots:
        (folder / f"{plot.name}.svg").write_text(plot.svg.replace("<svg ", '<svg style="background: white" ', 1))


def _plots(task: Task, splits: dict[str, Any], predicted: pa.Table, training: list[dict[str, float]]) -> Iterator[Plot]:
    if any("curves" in result for result in splits.values()):
        positive = (
            f"“{task.label_names[1]}” is the positive label" if task.num_outputs == 2 else "each label against the others"
        )
        if len(splits) > 1:
            lines = zip(("solid", "dashed", "dotted", "dash-dotted"), splits, strict=False)
            positive += "; " + ", ".join(f"{_short(split)} {line}" for line, split in lines)
        yield _plot("roc", "ROC", f"How many are found at what price of false alarms: {positive}.", _roc(splits))
        meaning = f"How many of those found are right, the more are found: {positive}."
        yield _plot("precision_recall", "Precision and recall", meaning, _precision_recall(splits))
    if task.is_regression:
        meaning = "On the diagonal the answer is the true score."
        yield _plot("scatter", "Predicted against true score", meaning, _scatter(predicted, splits))
    else:
        meaning = "On the diagonal the model is as sure as it should be; below it, too sure."
        yield _plot("calibration", "Calibration", meaning, _reliability(splits))
        meaning = "How sure the model is where it is right, and where it is wrong."
        yield _plot("confidence", "Confidence", meaning, _confidence(predicted))
    if any("robustness" in result for result in splits.values()):
        meaning = "Adversarial noise goes up the gradient of the loss, random noise anywhere."
        yield _plot("noise", "Noise on the word embeddings", meaning, _noise(splits))
    yield _plot(
        "training", "Training", "Loss of each update and its moving mean; below, the learning rate.", _training(training)
    )


def _roc(splits: dict[str, Any]) -> Figure:
    figure, axes = _square("false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for curve, look in _curves(splits, "auc", "AUC"):
        axes.plot(curve["roc"]["false_positive_rate"], curve["roc"]["true_positive_rate"], **look)
    _legend(figure)
    return figure


def _precision_recall(splits: dict[str, Any]) -> Figure:
    figure, axes = _square("recall", "precision")
    for curve, look in _curves(splits, "average_precision", "AP"):
        axes.plot(curve["precision_recall"]["recall"], curve["precision_recall"]["precision"], **look)
    _legend(figure)
    return figure


def _curves(splits: dict[str, Any], area: str, short: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each curve of each class, and its look: a color for the class, a line for the split."""
    per_split = [result.get("curves", {}) for result in splits.values()]
    for color, label in zip(itertools.cycle(COLORS), dict.fromkeys(itertools.chain(*per_split)), strict=False):
        drawn = [
            (curves[label], line) for curves, line in zip(per_split, itertools.cycle(LINES), strict=False) if label in curves
        ]
        legend = f"{label}: {short} {', '.join(f'{curve[area]:.3f}' for curve, _ in drawn)}"
        for number, (curve, line) in enumerate(drawn):
            shown = "_" if number else _literal(legend)  # matplotlib leaves _ out of legends
            yield curve, {"color": color, "linestyle": line, "linewidth": 1.3, "label": shown}


def _scatter(predicted: pa.Table, splits: dict[str, Any]) -> Figure:
    figure, axes = _figure("true score", "predicted score")
    labels, predictions = (predicted[name].to_numpy()[:MAX_POINTS] for name in ("label", "prediction"))
    ends = [min(labels.min(), predictions.min()), max(labels.max(), predictions.max())]
    axes.plot(ends, ends, color=GREY, linewidth=0.8, linestyle=":")
    axes.scatter(labels, predictions, s=7, alpha=0.45, color=BLUE, linewidths=0)
    return figure


def _confidence(predicted: pa.Table) -> Figure:
    confidence = np.array([max(scores) for scores in predicted["scores"].to_pylist()])
    right = predicted["label"].to_numpy() == predicted["prediction"].to_numpy()
    figure, axes = _figure("probability of the predicted label", "examples")
    bins = np.linspace(min(confidence.min(), 0.99), 1, 26).tolist()
    axes.hist([confidence[right], confidence[~right]], bins, stacked=True, color=[BLUE, ORANGE], label=["right", "wrong"])
    _legend(figure)
    return figure


def _reliability(splits: dict[str, Any]) -> Figure:
    figure, axes = _square("probability of the predicted label", "share that is right")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for color, line, (split, result) in zip(COLORS, LINES, splits.items(), strict=False):
        bins = result["calibration"]["bins"]
        label = f"{_short(split)}: ECE {result['calibration']['ece']:.3f}"
        places = [bin["confidence"] for bin in bins], [bin["accuracy"] for bin in bins]
        axes.plot(*places, "o", color=color, linestyle=line, linewidth=1.3, markersize=4, label=label)
    _legend(figure)
    return figure


def _noise(splits: dict[str, Any]) -> Figure:
    """The score over the noise's length, as a share of the embeddings' own."""
    figure, axes = _figure("length of the noise (embeddings = 1)", "score")
    for line, (split, result) in zip(itertools.cycle(LINES), splits.items(), strict=False):
        scores = result["robustness"]
        for kind, color in (("random", BLUE), ("adversarial", ORANGE)):
            points = {float(name.split()[1]): value for name, value in scores.items() if name.startswith(kind)}
            places, values = [0.0, *points], [scores["clean"], *points.values()]
            label = kind if len(splits) == 1 else f"{kind}, {_short(split)}"
            axes.plot(places, values, "o", color=color, linestyle=line, linewidth=1.3, markersize=4, label=label)
    _legend(figure)
    return figure


def _training(training: list[dict[str, float]]) -> Figure:
    updates, losses, rates = (np.array([line[name] for line in training]) for name in ("update", "loss", "learning_rate"))
    window = max(1, len(losses) // 30)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    every = slice(None, None, max(1, len(losses) // MAX_POINTS))
    figure = Figure(figsize=SIZE, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    upper.plot(updates[every], losses[every], color=BLUE, alpha=0.35, linewidth=0.8)
    upper.plot(updates[window - 1 :][every], smooth[every], color=BLUE, linewidth=1.3)
    upper.set_ylabel("loss")
    upper.axhline(0, color=GREY, linewidth=0.6)
    lower.plot(updates[every], rates[every], color=ORANGE, linewidth=1.3)
    lower.set_xlabel("update")
    lower.set_ylabel("rate")
    lower.axhline(0, color=GREY, linewidth=0.6)
    lower.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    return figure


def _figure(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return figure, axes


def _square(across: str, up: str) -> tuple[Figure, Axes]:
    """Of rates and shares: both ways from 0 to 1."""
    figure, axes = _figure(across, up)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    return figure, axes


def _legend(figure: Figure) -> None:
    """Below the axes, where it covers nothing."""
    labels = figure.axes[0].get_legend_handles_labels()[1]
    if 0 < len(labels) <= MAX_LABELS:
        figure.legend(loc="outside lower center", ncols=2 if len(labels) > 1 and max(map(len, labels)) <= 24 else 1)


def _short(split: str) -> str:
    """`validation_matched` is `matched`."""
    return split.removeprefix("validation_").replace("_", " ")


def _literal(text: str) -> str:
    """matplotlib takes what is between dollars for mathematics."""
    return text.replace("$", r"\$")


def _plot(name: str, title: str, meaning: str, figure: Figure) -> Plot:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Title": title, "Date": None, "Creator": None})
    text = file.getvalue()
    return Plot(name, title, meaning, text[text.index("<svg") :].replace(TEXT, "currentColor"))
