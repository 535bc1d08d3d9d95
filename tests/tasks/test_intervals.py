"""The resampled metrics are scikit-learn's, and the intervals hold the true value as often as they promise."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from components.tasks.intervals import OF_MATRICES, interval, resample
from components.tasks.metrics import METRICS
from components.tasks.table import TASKS, Task


def task(metric: str, num_labels: int) -> Task:
    return dataclasses.replace(TASKS["mnli"], metrics=(metric,), label_names=tuple(map(str, range(num_labels))))


@pytest.mark.parametrize("metric", list(OF_MATRICES))
@pytest.mark.parametrize("num_labels", [2, 3])
@pytest.mark.parametrize("sharp", [False, True])
def test_a_metric_of_a_matrix_is_the_metric_of_its_rows(metric: str, num_labels: int, sharp: bool) -> None:
    if metric == "f1" and num_labels > 2:
        pytest.skip("the F1 of one class is for two")
    random = np.random.default_rng(0)
    for _ in range(20):
        labels = random.integers(num_labels, size=30)
        predictions = labels.copy() if sharp else random.integers(random.integers(1, num_labels + 1), size=30)
        matrix = np.zeros((1, num_labels, num_labels), np.int64)
        np.add.at(matrix[0], (labels, predictions), 1)
        assert OF_MATRICES[metric](matrix)[0] == pytest.approx(METRICS[metric](labels, predictions), abs=1e-12)


def test_correlations_are_those_of_scipy() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(6, size=40).astype(np.float32)
    predictions = (labels + random.normal(size=40)).astype(np.float32)
    resampled = resample(TASKS["stsb"], labels, predictions, num_resamples=50, seed=7)
    drawn = np.random.default_rng(7).integers(40, size=(50, 40))
    for name, function in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        wanted = [function(labels[rows].astype(float), predictions[rows].astype(float))[0] for rows in drawn]
        assert resampled[name] == pytest.approx(wanted, abs=1e-12)


def test_a_constant_answer_has_an_interval_without_nan() -> None:
    labels = np.array([0.0, 1.0, 2.0])
    assert interval(resample(TASKS["stsb"], labels, np.ones(3))["pearson"]) == [0.0, 0.0]
    assert interval(resample(TASKS["cola"], np.array([0, 1, 1]), np.ones(3, np.int64))["matthews_correlation"]) == [0.0, 0.0]


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_an_interval_is_made_of_percentiles(confidence: float) -> None:
    values = np.random.default_rng(0).normal(size=1001)
    outside = 50 * (1 - confidence)
    wanted = [stats.scoreatpercentile(values, outside), stats.scoreatpercentile(values, 100 - outside)]
    assert interval(values, confidence) == pytest.approx(wanted, abs=1e-14)


def test_the_bootstrap_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(2, size=300)
    predictions = np.where(random.uniform(size=300) < 0.8, labels, 1 - labels)
    ours = interval(resample(task("accuracy", 2), labels, predictions, 20_000)["accuracy"])
    right = (labels == predictions).astype(float)
    scipys = stats.bootstrap((right,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1))
    assert ours == pytest.approx([*scipys.confidence_interval], abs=0.004)  # a row is 0.0033


COVERAGE = [("accuracy", 872), ("f1", 408), ("matthews_correlation", 1043)]


@pytest.mark.parametrize(("metric", "num_rows"), COVERAGE)
def test_intervals_hold_the_true_value_in_19_of_20_data_sets(metric: str, num_rows: int) -> None:
    """1,000 simulated validation splits of GLUE's sizes, of a model that is right four times of five."""
    cells = np.array([0.28, 0.07, 0.13, 0.52])  # (label, prediction): 00, 01, 10, 11
    true = OF_MATRICES[metric]((cells * 1e9).astype(np.int64).reshape(1, 2, 2))[0]
    random, held = np.random.default_rng(1), 0
    for number in range(1000):
        drawn = random.choice(4, size=num_rows, p=cells)
        low, high = interval(resample(task(metric, 2), drawn // 2, drawn % 2, 1000, seed=number)[metric])
        held += low <= true <= high
    assert 930 <= held <= 970, held


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_intervals_of_correlations_hold_too(metric: str) -> None:
    random, held, correlation = np.random.default_rng(1), 0, 0.85
    true = {"pearson": correlation, "spearman": 6 / np.pi * np.arcsin(correlation / 2)}[metric]  # of a normal distribution
    regression = dataclasses.replace(TASKS["stsb"], metrics=(metric,))
    for number in range(1000):
        left, noise = random.normal(size=(2, 400))
        right = correlation * left + np.sqrt(1 - correlation**2) * noise
        low, high = interval(resample(regression, left, right, 500, seed=number)[metric])
        held += low <= true <= high
    assert 930 <= held <= 970, held
