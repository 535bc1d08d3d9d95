"""Calibration, slices and worst errors, against cases worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from components.evaluate.analysis import NUM_ERRORS, calibration, slices, texts_of, worst
from components.modeling.load import load_tokenizer
from components.tasks.table import TASKS

SST2, STSB = TASKS["sst2"], TASKS["stsb"]


def binary(*positive: float) -> np.ndarray:
    return np.array([[1 - each, each] for each in positive])


def test_the_calibration_error_is_the_mean_gap_weighted_by_rows() -> None:
    found = calibration(np.array([1, 1, 0, 0]), binary(0.95, 0.95, 0.95, 0.45))
    # three at 0.95 of which two are right, one at 0.55 that is right
    assert [(bin["rows"], round(bin["accuracy"], 4)) for bin in found["bins"]] == [(1, 1.0), (3, 0.6667)]
    assert found["ece"] == pytest.approx(0.75 * (0.95 - 2 / 3) + 0.25 * 0.45)


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated() -> None:
    random = np.random.default_rng(0)
    positive = random.uniform(size=200_000)
    labels = (random.uniform(size=200_000) < positive).astype(int)
    assert calibration(labels, binary(*positive))["ece"] < 0.005
    assert calibration(labels, binary(*(positive > 0.5).astype(float)))["ece"] == pytest.approx(0.25, abs=0.01)


def test_the_calibration_error_is_that_of_scipys_bins() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], size=500)
    labels = random.integers(3, size=500)
    confidence, right = probabilities.max(1), (probabilities.argmax(1) == labels).astype(float)

    def in_bins(values: np.ndarray, statistic: str) -> np.ndarray:
        found: np.ndarray = stats.binned_statistic(confidence, values, statistic, bins=10, range=(0, 1)).statistic
        return found

    rows, sure, share = in_bins(right, "count"), in_bins(confidence, "mean"), in_bins(right, "mean")
    found = calibration(labels, probabilities)
    assert [bin["rows"] for bin in found["bins"]] == rows[rows > 0].tolist()
    assert [bin["confidence"] for bin in found["bins"]] == pytest.approx(sure[rows > 0].tolist(), abs=1e-14)
    assert [bin["accuracy"] for bin in found["bins"]] == pytest.approx(share[rows > 0].tolist(), abs=1e-14)
    assert found["ece"] == pytest.approx(np.nansum(rows * np.abs(share - sure)) / 500, abs=1e-14)


def test_slices_cover_every_row_once() -> None:
    lengths = np.array([3, 3, 3, 3, 5, 6, 7, 30])
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 0])
    predictions = np.array([0, 1, 0, 0, 0, 1, 1, 1])
    found = slices(SST2, labels, predictions, lengths)
    assert [(each["name"], each["rows"], each["score"]) for each in found["length"]] == [
        ("3 to 3 tokens", 4, 0.75),
        ("5 to 6 tokens", 2, 1.0),
        ("7 to 30 tokens", 2, 0.0),
    ]
    assert found["label"] == [
        {"name": "negative", "rows": 5, "recall": 0.6},
        {"name": "positive", "rows": 3, "recall": pytest.approx(2 / 3)},
    ]
    assert slices(STSB, labels * 1.0, predictions * 1.0, lengths)["label"] == []


def test_the_worst_are_the_surest_that_are_wrong() -> None:
    labels = np.array([0, 0, 1, 1])
    scores = binary(0.6, 0.99, 0.2, 0.9)
    assert worst(SST2, labels, scores.argmax(1), scores).tolist() == [1, 2, 0]
    assert worst(STSB, np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 0.0]), np.zeros((3, 1))).tolist() == [2, 0]
    assert len(worst(SST2, np.zeros(50, int), np.ones(50, int), binary(*[0.9] * 50))) == NUM_ERRORS


def test_texts_come_back_from_their_tokens() -> None:
    tokenizer = load_tokenizer("tiny")
    assert texts_of(tokenizer("a fine film .")["input_ids"], tokenizer) == ["a fine film."]
    assert texts_of(tokenizer("some dog ran .", "it ran .")["input_ids"], tokenizer) == ["some dog ran.", "it ran."]
