"""Where a model is good and where it is not: calibration, slices, and the answers that were surest and wrong."""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from components.evaluate.curves import curves
from components.tasks.metrics import confusion_matrix, measure, score
from components.tasks.table import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NUM_BINS = 10
NUM_SLICES = 4
NUM_ERRORS = 10


def describe(
    task: Task, labels: np.ndarray, predictions: np.ndarray, scores: np.ndarray, lengths: np.ndarray
) -> dict[str, Any]:
    """What metrics.json says of a split: rows, metrics, slices; for classes confusion_matrix, calibration and curves."""
    described = {
        "rows": len(labels),
        "metrics": measure(task, labels, predictions),
        "slices": slices(task, labels, predictions, lengths),
    }
    if not task.is_regression:
        described["confusion_matrix"] = confusion_matrix(task, labels, predictions)
        described["calibration"] = calibration(labels, scores)
        described |= curves(task, labels, scores)
    return described


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Expected calibration error, and what it is made of: how often predictions of like confidence are right.

    Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599), equation 3, with ten bins of equal width.

    Args:
        labels: (rows,) class numbers.
        probabilities: (rows, classes).

    Returns:
        ece: 0 to 1.  bins: {"rows", "confidence", "accuracy"} of each that has rows, from low confidence to high.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    numbers = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    bins = [
        {"rows": int(there.sum()), "confidence": float(confidence[there].mean()), "accuracy": float(right[there].mean())}
        for there in (numbers == number for number in range(NUM_BINS))
        if there.any()
    ]
    return {"ece": sum(bin["rows"] * abs(bin["accuracy"] - bin["confidence"]) for bin in bins) / len(labels), "bins": bins}


def slices(task: Task, labels: np.ndarray, predictions: np.ndarray, lengths: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """The score of a quarter of the rows each, from short to long; and for classes how often each label is recognised.

    Args:
        labels, predictions: (rows,), class numbers or scores.
        lengths: (rows,) tokens.
    """
    edges = np.unique(np.quantile(lengths, np.arange(1, NUM_SLICES + 1) / NUM_SLICES, method="inverted_cdf"))
    numbers = np.searchsorted(edges, lengths)
    by_length = []
    for number in np.unique(numbers):
        there = numbers == number
        name = f"{lengths[there].min()} to {lengths[there].max()} tokens"
        measured = score(measure(task, labels[there], predictions[there]))
        by_length.append({"name": name, "rows": int(there.sum()), "score": measured})
    by_label = [
        {"name": name, "rows": int(there.sum()), "recall": float((predictions[there] == number).mean())}
        for number, name in enumerate(task.label_names)
        if (there := labels == number).any()
    ]
    return {"length": by_length, "label": by_label}


def worst(task: Task, labels: np.ndarray, predictions: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The rows whose answers were surest and wrong, or, for a regression, furthest off; at most NUM_ERRORS.

    Args:
        scores: (rows, outputs) probabilities or scores.
    """
    badness = np.abs(predictions - labels) if task.is_regression else np.where(predictions != labels, scores.max(1), 0.0)
    order = np.argsort(-badness, kind="stable")[:NUM_ERRORS]
    return order[badness[order] > 0]


def texts_of(ids: list[int], tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """About the texts that the tokens were made of; none where a text was empty."""
    ends = [*(place for place, token in enumerate(ids) if token == tokenizer.sep_token_id), len(ids)]
    decoded = (tokenizer.decode(ids[start:end], skip_special_tokens=True) for start, end in itertools.pairwise([0, *ends]))
    parts = [str(part).strip() for part in decoded]
    return [part for part in parts if part]
