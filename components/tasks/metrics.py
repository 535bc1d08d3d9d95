"""GLUE's metrics by name. The arithmetic is scikit-learn's and scipy's."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import stats
from sklearn import metrics

from components.tasks.table import Task

Metric = Callable[[np.ndarray, np.ndarray], float]


def _correlation(function: Callable[..., tuple[float, float]]) -> Metric:
    def correlation(labels: np.ndarray, predictions: np.ndarray) -> float:
        if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
            return 0.0  # not defined for a constant; it certainly predicts nothing
        return float(function(labels.astype(np.float64), predictions.astype(np.float64))[0])  # not in their own float32

    return correlation


METRICS: Mapping[str, Metric] = {
    "accuracy": lambda labels, predictions: float(metrics.accuracy_score(labels, predictions)),
    "f1": lambda labels, predictions: float(metrics.f1_score(labels, predictions, zero_division=0.0)),
    "macro_f1": lambda labels, predictions: float(metrics.f1_score(labels, predictions, average="macro", zero_division=0.0)),
    "matthews_correlation": lambda labels, predictions: float(metrics.matthews_corrcoef(labels, predictions)),
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}


def measure(task: Task, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """The task's metrics, each from -1 or 0 to 1.

    Args:
        labels, predictions: (rows,), class numbers or scores.
    """
    return {name: METRICS[name](labels, predictions) for name in task.metrics}


def score(measured: Mapping[str, float]) -> float:
    """One number for a task, as GLUE's leaderboard has it: the mean of its metrics."""
    return float(np.mean(list(measured.values())))


def confusion_matrix(task: Task, labels: np.ndarray, predictions: np.ndarray) -> list[list[int]]:
    """Rows are true labels, columns predicted ones, in the order of task.label_names."""
    matrix: list[list[int]] = metrics.confusion_matrix(labels, predictions, labels=range(task.num_outputs)).tolist()
    return matrix
