"""What a class's probability is worth at every threshold: ROC and precision-recall, one class against the rest."""

import heapq
from typing import Any

import numpy as np
from sklearn import metrics

from components.tasks.table import Task

NUM_POINTS = 200
ABOVE_EVERY_PROBABILITY = float(np.nextafter(1, 2))  # in place of scikit-learn's infinity, which JSON and KFP cannot hold


def curves(task: Task, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """ROC and precision-recall of each class; of a binary task, of label 1 alone.

    Args:
        labels: (rows,) class numbers.
        probabilities: (rows, classes).

    Returns:
        auc, average_precision: 0 to 1, the mean over the classes. curves: label name -> its auc and average_precision, `roc`
        (false_positive_rate and true_positive_rate of calling positive what has at least `threshold`) and `precision_recall`
        (recall, precision), at most NUM_POINTS each. A class that no row has, or all have, has no curve; where that is true
        of all classes there is nothing: {}.
    """
    numbers = [1] if task.num_outputs == 2 else range(task.num_outputs)
    found = {
        task.label_names[number]: _curve(labels == number, probabilities[:, number].astype(np.float64))
        for number in numbers
        if 0 < (labels == number).sum() < len(labels)
    }
    if not found:
        return {}
    means = {name: float(np.mean([curve[name] for curve in found.values()])) for name in ("auc", "average_precision")}
    return {**means, "curves": found}


def _curve(positive: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
    false_rate, true_rate, threshold = metrics.roc_curve(positive, probability)
    precision, recall, _ = metrics.precision_recall_curve(positive, probability, drop_intermediate=True)
    roc, pr = thin(false_rate, true_rate), thin(recall, precision)
    threshold[0] = ABOVE_EVERY_PROBABILITY
    return {
        "auc": float(metrics.roc_auc_score(positive, probability)),
        "average_precision": float(metrics.average_precision_score(positive, probability)),
        "roc": {
            "false_positive_rate": false_rate[roc].tolist(),
            "true_positive_rate": true_rate[roc].tolist(),
            "threshold": threshold[roc].tolist(),
        },
        "precision_recall": {"recall": recall[pr].tolist(), "precision": precision[pr].tolist()},
    }


def thin(x: np.ndarray, y: np.ndarray, num_points: int = NUM_POINTS) -> list[int]:
    """Places of at most `num_points` points that show the line through all of them, in order.

    The ends, and again and again the point that is furthest from the line through those taken so far, until nothing is off it
    (Douglas and Peucker, 1973).
    """
    taken = {0, len(x) - 1}
    parts = [_furthest(x, y, 0, len(x) - 1)]
    while len(taken) < num_points and parts[0][0] < 0:
        _, middle, start, end = heapq.heappop(parts)
        taken.add(middle)
        for part in ((start, middle), (middle, end)):
            heapq.heappush(parts, _furthest(x, y, *part))
    return sorted(taken)


def _furthest(x: np.ndarray, y: np.ndarray, start: int, end: int) -> tuple[float, int, int, int]:
    """(minus the distance, place, start, end) of the point furthest from the line between two; the distance is 0 if none is."""
    across, up = x[end] - x[start], y[end] - y[start]
    dx, dy = x[start : end + 1] - x[start], y[start : end + 1] - y[start]
    length = np.hypot(across, up)
    distances = np.abs(dx * up - dy * across) / length if length else np.hypot(dx, dy)
    place = int(distances.argmax())
    return -float(distances[place]), start + place, start, end
