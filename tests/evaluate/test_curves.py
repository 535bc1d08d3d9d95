"""Curves and the areas under them are scikit-learn's; whatever the labels, they are numbers."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn import metrics

from components.evaluate.curves import NUM_POINTS, curves, thin
from components.tasks.table import TASKS

SST2, MNLI = TASKS["sst2"], TASKS["mnli"]


def binary(num_rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=num_rows)
    positive = 1 / (1 + np.exp(-2 * labels + 1 - random.normal(size=num_rows)))
    return labels, np.stack([1 - positive, positive], 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_the_curves_of_a_binary_task_are_those_of_label_1(seed: int) -> None:
    labels, probabilities = binary(150, seed)
    found = curves(SST2, labels, probabilities)
    positive = probabilities[:, 1].astype(np.float64)
    assert list(found["curves"]) == ["positive"]
    assert found["auc"] == metrics.roc_auc_score(labels, positive)
    assert found["average_precision"] == metrics.average_precision_score(labels, positive)
    roc, pr = found["curves"]["positive"]["roc"], found["curves"]["positive"]["precision_recall"]
    false_rate, true_rate, threshold = metrics.roc_curve(labels, positive)
    threshold[0] = roc["threshold"][0]  # infinity there
    assert set(zip(*roc.values(), strict=True)) <= set(zip(false_rate, true_rate, threshold, strict=True))
    assert np.trapezoid(roc["true_positive_rate"], roc["false_positive_rate"]) == pytest.approx(found["auc"], abs=1e-14)
    precision, recall, _ = metrics.precision_recall_curve(labels, positive)
    assert set(zip(pr["recall"], pr["precision"], strict=True)) <= set(zip(recall, precision, strict=True))
    assert np.trapezoid(pr["precision"][::-1], pr["recall"][::-1]) == pytest.approx(metrics.auc(recall, precision), abs=1e-14)


def test_a_threshold_gives_the_rates_beside_it() -> None:
    labels, probabilities = binary(5000)
    roc = curves(SST2, labels, probabilities)["curves"]["positive"]["roc"]
    for false_rate, true_rate, threshold in zip(*roc.values(), strict=True):
        called = probabilities[:, 1] >= threshold
        assert false_rate == called[labels == 0].mean()
        assert true_rate == called[labels == 1].mean()


def test_of_several_classes_each_is_set_against_the_rest() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(3, size=300)
    probabilities = random.dirichlet([1, 1, 1], size=300)
    found = curves(MNLI, labels, probabilities)
    assert list(found["curves"]) == list(MNLI.label_names)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-15)
    wanted = metrics.average_precision_score(np.eye(3)[labels], probabilities, average="macro")
    assert found["average_precision"] == pytest.approx(wanted, abs=1e-15)


def test_a_class_without_rows_has_no_curve() -> None:
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], size=40)
    found = curves(MNLI, np.arange(40) % 2, probabilities)
    assert list(found["curves"]) == ["entailment", "neutral"]
    assert curves(MNLI, np.zeros(40, int), probabilities) == {}
    for label in (0, 1):
        labels, scores = binary(10)
        assert curves(SST2, np.full_like(labels, label), scores) == {}
    assert curves(SST2, np.array([1]), np.array([[0.5, 0.5]])) == {}


@pytest.mark.parametrize("positive", [0.0, 0.5, 1.0])
def test_a_constant_answer_tells_nothing_apart(positive: float) -> None:
    found = curves(SST2, np.array([0, 1, 1, 1]), np.array([[1 - positive, positive]] * 4))
    assert (found["auc"], found["average_precision"]) == (0.5, 0.75)
    assert found["curves"]["positive"]["roc"]["false_positive_rate"] == [0.0, 1.0]


def test_everything_is_a_number_that_json_knows() -> None:
    for labels, probabilities in (binary(3000), (np.array([0, 1]), np.eye(2)), (np.array([0, 1]), np.eye(2)[::-1])):
        text = json.dumps(curves(SST2, labels, probabilities), allow_nan=False)
        assert "null" not in text


def test_a_long_curve_keeps_its_shape_in_few_points() -> None:
    labels, probabilities = binary(40_000)
    found = curves(SST2, labels, probabilities)["curves"]["positive"]
    false_rate, true_rate, _ = metrics.roc_curve(labels, probabilities[:, 1])
    roc = found["roc"]
    assert len(roc["threshold"]) <= NUM_POINTS < len(false_rate)
    assert np.trapezoid(roc["true_positive_rate"], roc["false_positive_rate"]) == pytest.approx(found["auc"], abs=5e-4)
    middles = np.interp(false_rate, roc["false_positive_rate"], roc["true_positive_rate"])
    flat = (false_rate > 0.02) & (false_rate < 0.98)  # elsewhere it is steep, and off to the side is not off upwards
    assert np.abs(middles - true_rate)[flat].max() < 0.01
    pr = found["precision_recall"]
    assert len(pr["recall"]) <= NUM_POINTS
    area = np.trapezoid(pr["precision"][::-1], pr["recall"][::-1])
    assert area == pytest.approx(found["average_precision"], abs=2e-3)


def test_points_on_a_line_are_left_out_and_corners_stay() -> None:
    x, y = np.array([0.0, 0.0, 0.0, 0.5, 1.0]), np.array([0.0, 0.5, 1.0, 1.0, 1.0])
    assert thin(x, y) == [0, 2, 4]
    assert thin(x[:2], y[:2]) == [0, 1]
    assert thin(np.zeros(3), np.array([0.0, 1.0, 0.0])) == [0, 1, 2]  # back to where it began
    noisy = np.random.default_rng(0).uniform(size=(2, 1000))
    assert len(thin(np.sort(noisy[0]), noisy[1], 50)) == 50


def test_a_binary_task_may_name_its_labels_as_it_likes() -> None:
    labels, probabilities = binary(50)
    task = dataclasses.replace(SST2, label_names=("<no>", "a | b"))
    assert list(curves(task, labels, probabilities)["curves"]) == ["a | b"]
