"""May a model take the champion's place? Only if it is not worse than the champion on the very same examples.

Non-inferiority by paired bootstrap: the difference of the two scores is drawn anew, a row with both models' answers at a time,
and the lower end of its 95 % interval must lie above -margin. So a model that is worse by the margin passes in about 2.5 % of
cases, as is usual for such trials (ICH E9, section 3.3.2). For classes, one row that only the champion has right and one that
only the challenger has right are mixed in: without them a few rows with no disagreement would pass for proof (after Agresti and
Min, Simple improved confidence intervals for comparing matched proportions, 2005). benchmarks/gate.py simulates all this.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import stats

from components.artifacts.names import METRICS, PREDICTIONS
from components.registry.criteria import Criteria
from components.tasks.intervals import CONFIDENCE, NUM_RESAMPLES, OF_MATRICES, interval, resample
from components.tasks.table import Task

TEXT_NOISES = ("typos", "capitals", "odd spaces")
POWER = 0.92  # a little above nine times in ten: the spread that it is computed from is an estimate


@dataclass(frozen=True)
class Decision:
    """What the gate says of a model, and why."""

    promote: bool
    reasons: list[str]
    criteria: Criteria
    champion: str = ""
    """The version that it was compared with; empty where there is none."""
    comparison: dict[str, Any] | None = None
    """As `compare` returns it."""

    def __str__(self) -> str:
        return f"{'may be champion' if self.promote else 'stays challenger'}: {'; '.join(self.reasons)}"

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def decide(challenger: Path, champion: Path | None, criteria: Criteria, champion_version: str = "") -> Decision:
    """The gate, on two folders that components.evaluate wrote; None for the champion where there is none."""
    results = json.loads((challenger / METRICS).read_text())
    against = _below(results, criteria)
    if champion is None:
        return Decision(not against, against or ["there is no champion yet"], criteria)
    reason = _incomparable(results, json.loads((champion / METRICS).read_text()), champion_version)
    if reason:
        return Decision(False, [*against, reason], criteria, champion_version)
    comparison = compare(task_of(results), _answers(challenger), _answers(champion), criteria.champion_margin)
    if comparison["low"] <= -criteria.champion_margin:
        against.append(_not_shown(comparison, champion_version))
    good = f"not worse than version {champion_version} by {criteria.champion_margin:g} or more: {_range(comparison)}"
    return Decision(not against, against or [good], criteria, champion_version, comparison)


Answers = dict[str, tuple[np.ndarray, np.ndarray]]
"""Split -> labels and predictions, (rows,) each: class numbers or scores."""


def compare(task: Task, challenger: Answers, champion: Answers, margin: float) -> dict[str, Any]:
    """Challenger against champion on the same rows.

    Returns:
        difference: of the scores, challenger minus champion.  low, high: its 95 % interval.  rows, margin.
        power: how often a model as good as the champion would pass on rows like these, 0 to 1.
        recommended_rows: how many of them it takes for nine times in ten.
        champion_only, challenger_only, p_value: for classes, rows that only the one has right, and McNemar's exact test that
        either is as likely (Note on the sampling error of the difference between correlated proportions, 1947).
    """
    drawn, observed = [], []
    for number, (split, (labels, predictions)) in enumerate(challenger.items()):
        rival = champion[split][1]
        drawn.append(paired_differences(task, labels, predictions, rival, seed=number))
        observed.append(_score(task, labels, predictions) - _score(task, labels, rival))
    differences = np.mean(drawn, axis=0)
    low, high = interval(differences)
    rows = sum(len(labels) for labels, _ in challenger.values())
    width = stats.norm.ppf((1 + CONFIDENCE) / 2)
    spread = float(differences.std()) or 1e-12
    compared = {
        "difference": float(np.mean(observed)),
        "low": low,
        "high": high,
        "margin": margin,
        "rows": rows,
        "power": float(stats.norm.cdf(margin / spread - width)),
    }
    if margin:
        compared["recommended_rows"] = int(np.ceil(rows * ((width + stats.norm.ppf(POWER)) * spread / margin) ** 2))
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


def task_of(results: dict[str, Any]) -> Task:
    """What metrics.json says of its task: enough to measure it again."""
    metrics = next(iter(results["splits"].values()))["metrics"]
    return Task(results["task"], (), tuple(results["labels"]), tuple(metrics))


def _score(task: Task, labels: np.ndarray, predictions: np.ndarray) -> float:
    from components.tasks.metrics import measure, score

    return score(measure(task, labels, predictions))


def _answers(folder: Path) -> Answers:
    table = pq.read_table(folder / PREDICTIONS, columns=["split", "label", "prediction"])
    splits = table["split"].cast(pa.string())
    answers = {}
    for split in splits.unique().to_pylist():
        rows = table.filter(pc.equal(splits, split))
        answers[split] = rows["label"].to_numpy(), rows["prediction"].to_numpy()
    return answers


def _below(results: dict[str, Any], criteria: Criteria) -> list[str]:
    """Why the model may be nobody's champion."""
    score, majority = results["score"], results["baselines"]["majority"]
    reasons = []
    if score <= majority:
        reasons.append(f"its score {score:.4f} does not beat {majority:.4f}, that of always giving the most frequent answer")
    if score < criteria.champion_min_score:
        reasons.append(f"its score {score:.4f} is below champion_min_score {criteria.champion_min_score:g}")
    if criteria.champion_min_robustness:
        noisy = {
            f"{split} with {noise}": result["robustness"][noise]
            for split, result in results["splits"].items()
            if "robustness" in result
            for noise in TEXT_NOISES
        }
        if not noisy:
            reasons.append("its robustness was not measured (robustness_rows is 0), and champion_min_robustness asks for it")
        elif min(noisy.values()) < criteria.champion_min_robustness:
            worst = min(noisy, key=lambda name: noisy[name])
            reasons.append(
                f"{noisy[worst]:.4f} on {worst} is below champion_min_robustness {criteria.champion_min_robustness:g}"
            )
    return reasons


def _incomparable(results: dict[str, Any], rival: dict[str, Any], version: str) -> str:
    """Why the two may not be compared; '' where they may."""
    if results["labels"] != rival["labels"]:
        return f"not comparable with version {version}: its labels are {rival['labels']}, these are {results['labels']}"
    digests, others = ({name: split["digest"] for name, split in part["splits"].items()} for part in (results, rival))
    if differing := sorted(name for name in digests.keys() | others.keys() if digests.get(name) != others.get(name)):
        return f"not comparable with version {version}: it was measured on other examples ({', '.join(differing)})"
    return ""


def _not_shown(compared: dict[str, Any], version: str) -> str:
    text = f"not shown to be within {compared['margin']:g} of version {version}: {_range(compared)}"
    if "recommended_rows" in compared and compared["power"] < POWER and compared["high"] > 0:
        text += (
            f" (on {compared['rows']} rows an equal model passes {compared['power']:.0%} of the time;"
            f" {compared['recommended_rows']} rows would make it {POWER:.0%})"
        )
    return text


def _range(compared: dict[str, Any]) -> str:
    return f"difference {compared['difference']:+.4f}, 95 % {compared['low']:+.4f} to {compared['high']:+.4f}"
