"""Two models on the same rows: how far apart are their scores, and how sure is that?

The difference of the two scores is drawn anew, a row with both models' answers at a time (paired bootstrap). For classes, one
row that only the champion has right and one that only the challenger has right are mixed in: without them a few rows with no
disagreement would pass for proof (after Agresti and Min, Simple improved confidence intervals for comparing matched
proportions, 2005). benchmarks/gate.py simulates all this.
"""

from typing import Any

import numpy as np
from scipy import special, stats

from components.tasks.intervals import CONFIDENCE, NUM_RESAMPLES, OF_MATRICES, interval, point, resample
from components.tasks.table import Task

POWER = 0.92  # a little above nine times in ten: the spread that it is computed from is an estimate

Answers = dict[str, tuple[np.ndarray, np.ndarray]]
"""Split -> labels and predictions, (rows,) each: class numbers or scores."""


def compare(
    task: Task, challenger: Answers, champion: Answers, margin: float, confidence: float = CONFIDENCE
) -> dict[str, Any]:
    """Challenger against champion on the same rows.

    Args:
        confidence: of the interval. Above 95 %, that of 95 % is stretched as a normal distribution's is: the far tails of a
            bootstrap take more resamples than they are worth.

    Returns:
        difference: of the scores, challenger minus champion.  low, high: its interval.  rows, margin, confidence.
        power: how often a model as good as the champion would pass on rows like these, 0 to 1.
        recommended_rows: how many of them it takes for nine times in ten.
        champion_only, challenger_only, p_value: for classes, rows that only the one has right, and McNemar's exact test that
        either is as likely (Note on the sampling error of the difference between correlated proportions, 1947).
    """
    drawn, observed = [], []
    for number, (split, (labels, predictions)) in enumerate(challenger.items()):
        rival = champion[split][1]
        drawn.append(paired_differences(task, labels, predictions, rival, seed=number))
        observed.append(point(task, labels, predictions) - point(task, labels, rival))
    differences = np.mean(drawn, axis=0)
    low, high = interval(differences)
    rows = sum(len(labels) for labels, _ in challenger.values())
    width = float(special.ndtri((1 + confidence) / 2))
    stretch = width / float(special.ndtri((1 + CONFIDENCE) / 2))
    middle = float(differences.mean())
    spread = float(differences.std()) or 1e-12
    compared = {
        "difference": float(np.mean(observed)),
        "low": middle + stretch * (low - middle),
        "high": middle + stretch * (high - middle),
        "margin": margin,
        "confidence": confidence,
        "rows": rows,
        "power": float(special.ndtr(margin / spread - width)),
    }
    if margin:
        compared["recommended_rows"] = int(np.ceil(rows * ((width + special.ndtri(POWER)) * spread / margin) ** 2))
    if task.is_regression:
        return compared
    right = np.concatenate([labels == predictions for labels, predictions in challenger.values()])
    rival_right = np.concatenate([labels == predictions for labels, predictions in champion.values()])
    ours, theirs = int((right & ~rival_right).sum()), int((~right & rival_right).sum())
    p_value = float(stats.binomtest(ours, ours + theirs).pvalue) if ours + theirs else 1.0
    return {**compared, "champion_only": theirs, "challenger_only": ours, "p_value": p_value}


def paired_differences(
    task: Task,
    labels: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Score of the challenger minus that of the champion, on rows drawn with replacement: (num_resamples,).

    Args:
        labels, challenger, champion: (rows,), class numbers or scores.
    """
    if task.is_regression:  # the same seed draws the same rows
        parts = [resample(task, labels, predictions, num_resamples, seed) for predictions in (challenger, champion)]
        scores = [np.mean([part[name] for name in task.metrics], axis=0) for part in parts]
        return scores[0] - scores[1]
    classes, rows = task.num_outputs, len(labels)
    joint = (labels * classes + challenger) * classes + champion
    cells = np.bincount(joint, minlength=classes**3).reshape(classes, classes, classes) + _one_each(labels, classes)
    counts = np.random.default_rng(seed).multinomial(rows, (cells / cells.sum()).ravel(), num_resamples)
    tables = counts.reshape(num_resamples, classes, classes, classes)  # label, challenger, champion
    measured = [OF_MATRICES[name](tables.sum(3)) - OF_MATRICES[name](tables.sum(2)) for name in task.metrics]
    return np.mean(measured, axis=0)


def _one_each(labels: np.ndarray, classes: int) -> np.ndarray:
    """(label, challenger, champion) weights: a row that only the champion has right, and one that only the challenger has."""
    weights = np.zeros((classes, classes, classes))
    frequencies = np.bincount(labels, minlength=classes) / len(labels) / (classes - 1)
    for label in range(classes):
        for wrong in set(range(classes)) - {label}:
            weights[label, wrong, label] = weights[label, label, wrong] = frequencies[label]
    return weights
