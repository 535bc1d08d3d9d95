"""How far a metric may be from what it would be on all texts of this kind: the percentile bootstrap over the split's rows.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. For classes, drawing rows anew is drawing the counts
of the confusion matrix anew, which costs the same for a thousand rows and for a million.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import stats

from components.tasks.table import Task

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95
ROWS_AT_ONCE = 1_000_000


def resample(
    task: Task, labels: np.ndarray, predictions: np.ndarray, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, np.ndarray]:
    """The task's metrics, each on as many rows, drawn with replacement, as there are: (num_resamples,).

    Args:
        labels, predictions: (rows,), class numbers or scores.
    """
    random = np.random.default_rng(seed)
    if task.is_regression:
        return _correlations(task, labels, predictions, num_resamples, random)
    cells = np.bincount(labels * task.num_outputs + predictions, minlength=task.num_outputs**2)
    counts = random.multinomial(len(labels), cells / len(labels), num_resamples)
    matrices = counts.reshape(num_resamples, task.num_outputs, task.num_outputs)
    return {name: OF_MATRICES[name](matrices) for name in task.metrics}


def point(task: Task, labels: np.ndarray, predictions: np.ndarray) -> float:
    """The score on these very rows: the mean of the task's metrics, as components.tasks.metrics has it, without scikit-learn.

    Args:
        labels, predictions: (rows,), class numbers or scores.
    """
    if task.is_regression:
        pairs = {"pearson": (labels, predictions), "spearman": (stats.rankdata(labels), stats.rankdata(predictions))}
        return float(np.mean([_pearson(*(values[None] for values in pairs[name])) for name in task.metrics]))
    cells = np.bincount(labels * task.num_outputs + predictions, minlength=task.num_outputs**2)
    matrix = cells.reshape(1, task.num_outputs, task.num_outputs)
    return float(np.mean([OF_MATRICES[name](matrix) for name in task.metrics]))


def interval(values: np.ndarray, confidence: float = CONFIDENCE) -> list[float]:
    """[low, high]: the middle `confidence` of the values."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return [float(low), float(high)]


def _correlations(
    task: Task, labels: np.ndarray, predictions: np.ndarray, num_resamples: int, random: np.random.Generator
) -> dict[str, np.ndarray]:
    pieces: list[dict[str, np.ndarray]] = []
    at_once = max(1, ROWS_AT_ONCE // len(labels))
    for start in range(0, num_resamples, at_once):
        drawn = random.integers(len(labels), size=(min(at_once, num_resamples - start), len(labels)))
        pairs = {"pearson": (labels[drawn], predictions[drawn])}
        pairs["spearman"] = tuple(stats.rankdata(values, axis=1) for values in pairs["pearson"])  # type: ignore[assignment]
        pieces.append({name: _pearson(*pairs[name]) for name in task.metrics})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in task.metrics}


def _pearson(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of each row of two (resamples, rows) arrays; 0 where one is constant."""
    left, right = (values - values.mean(1, keepdims=True) for values in (left.astype(np.float64), right.astype(np.float64)))
    return _divided((left * right).sum(1), np.sqrt((left**2).sum(1) * (right**2).sum(1)))


def _accuracy(matrices: np.ndarray) -> np.ndarray:
    return matrices.trace(axis1=1, axis2=2) / matrices.sum((1, 2))


def _f1(matrices: np.ndarray) -> np.ndarray:
    """Of each class: (resamples, classes)."""
    right = matrices.diagonal(axis1=1, axis2=2)
    return _divided(2.0 * right, matrices.sum(1) + matrices.sum(2))


def _macro_f1(matrices: np.ndarray) -> np.ndarray:
    """The mean over the classes that occur, as labels or as predictions."""
    occurs = matrices.sum(1) + matrices.sum(2) > 0
    return _divided((_f1(matrices) * occurs).sum(1), occurs.sum(1))


def _matthews(matrices: np.ndarray) -> np.ndarray:
    """For any number of classes (Gorodkin, 2004)."""
    counts = matrices.astype(np.float64)
    total, right = counts.sum((1, 2)), counts.trace(axis1=1, axis2=2)
    true, predicted = counts.sum(2), counts.sum(1)
    spread = (total**2 - (true**2).sum(1)) * (total**2 - (predicted**2).sum(1))
    return _divided(right * total - (true * predicted).sum(1), np.sqrt(spread))


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """0 where the denominator is."""
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0)


OF_MATRICES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy,
    "f1": lambda matrices: _f1(matrices)[:, 1],
    "macro_f1": _macro_f1,
    "matthews_correlation": _matthews,
}
"""(resamples, label, prediction) counts -> (resamples,)."""
