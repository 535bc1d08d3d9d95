import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from components.tasks.metrics import METRICS, confusion_matrix, measure, score
from components.tasks.table import TASKS

LABELS = np.array([1, 1, 1, 0, 0, 1, 0, 1])
PREDICTIONS = np.array([1, 0, 1, 0, 1, 1, 0, 1])
TP, TN, FP, FN = 4, 2, 1, 1


def test_class_metrics_are_their_formulas() -> None:
    assert METRICS["accuracy"](LABELS, PREDICTIONS) == (TP + TN) / 8
    assert METRICS["f1"](LABELS, PREDICTIONS) == pytest.approx(2 * TP / (2 * TP + FP + FN))
    expected = (TP * TN - FP * FN) / math.sqrt((TP + FP) * (TP + FN) * (TN + FP) * (TN + FN))
    assert METRICS["matthews_correlation"](LABELS, PREDICTIONS) == pytest.approx(expected)
    other = 2 * TN / (2 * TN + FP + FN)
    assert METRICS["macro_f1"](LABELS, PREDICTIONS) == pytest.approx((2 * TP / (2 * TP + FP + FN) + other) / 2)


def test_correlations_are_their_formulas() -> None:
    x, y = np.array([0.0, 1.0, 2.5, 5.0]), np.array([0.1, 3.0, 2.0, 4.0])
    centred = (x - x.mean(), y - y.mean())
    pearson = (centred[0] * centred[1]).sum() / math.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    assert METRICS["pearson"](x, y) == pytest.approx(pearson)
    assert METRICS["spearman"](x, y) == pytest.approx(1 - 6 * (0 + 1 + 1 + 0) / (4 * 15))


@pytest.mark.parametrize("name", METRICS)
def test_a_constant_answer_is_a_number_and_no_better_than_nothing(name: str) -> None:
    value = METRICS[name](LABELS, np.zeros(8, int))
    assert math.isfinite(value)
    assert value <= 0.5


def test_every_task_has_known_metrics_and_the_score_is_their_mean() -> None:
    assert all(metric in METRICS for task in TASKS.values() for metric in task.metrics)
    measured = measure(TASKS["mrpc"], LABELS, PREDICTIONS)
    assert set(measured) == {"f1", "accuracy"}
    assert score(measured) == pytest.approx((0.8 + 0.75) / 2)


def test_confusion_matrix_has_true_labels_in_rows() -> None:
    assert confusion_matrix(TASKS["sst2"], LABELS, PREDICTIONS) == [[TN, FP], [FN, TP]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_labels", [2, 3, 5])
def test_class_metrics_are_scikit_learns_to_the_last_bit(seed: int, num_labels: int) -> None:
    random = np.random.default_rng(seed)
    labels, predictions = random.integers(num_labels, size=(2, 97))
    for answers in (predictions, labels, np.zeros(97, np.int64)):
        assert METRICS["accuracy"](labels, answers) == sklearn_metrics.accuracy_score(labels, answers)
        assert METRICS["macro_f1"](labels, answers) == sklearn_metrics.f1_score(labels, answers, average="macro")
        assert METRICS["matthews_correlation"](labels, answers) == sklearn_metrics.matthews_corrcoef(labels, answers)
        if num_labels == 2:
            assert METRICS["f1"](labels, answers) == sklearn_metrics.f1_score(labels, answers, zero_division=0.0)


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_scipys_in_double_precision(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(6, size=97).astype(np.float32)  # with ties
    predictions = (labels + random.normal(size=97)).astype(np.float32)
    for name, function in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        assert METRICS[name](labels, predictions) == function(labels.astype(np.float64), predictions.astype(np.float64))[0]
        assert METRICS[name](labels, labels) == pytest.approx(1.0, abs=1e-15)
        assert METRICS[name](labels, -labels) == pytest.approx(-1.0, abs=1e-15)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_a_split_with_one_label_or_one_row_has_numbers(name: str, label: int) -> None:
    for num_rows in (1, 8):
        same = np.full(num_rows, label)
        for answers in (same, 1 - same):
            assert math.isfinite(METRICS[name](same, answers))
            assert math.isfinite(METRICS[name](same.astype(np.float32), answers.astype(np.float32)))
