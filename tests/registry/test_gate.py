"""The gate: statistics against slow references, refusals, and how often it errs."""

import json
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gate import Truth

from components.errors import UserError
from components.registry.criteria import Criteria
from components.registry.gate import compare, decide, paired_differences
from components.tasks.metrics import measure, score
from components.tasks.table import TASKS

CRITERIA = Criteria(0.05, 0.0, 0.0)


@pytest.mark.parametrize("name", ["sst2", "mrpc", "cola", "mnli", "stsb"])
def test_paired_differences_are_those_of_rows_drawn_together(name: str) -> None:
    task, random = TASKS[name], np.random.default_rng(1)
    labels, challenger, champion = Truth(task, 0.85, 0.1, 0.02).draw(900, random)
    differences = paired_differences(task, labels, challenger, champion, 4000)
    slow = []
    for _ in range(700):
        rows = random.integers(len(labels), size=len(labels))
        scores = [score(measure(task, labels[rows], answers[rows])) for answers in (challenger, champion)]
        slow.append(scores[0] - scores[1])
    assert differences.mean() == pytest.approx(np.mean(slow), abs=4 * np.std(slow) / 700**0.5 + 1e-4)
    assert differences.std() == pytest.approx(np.std(slow), rel=0.12)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    labels = np.zeros(40, int)
    challenger, champion = labels.copy(), labels.copy()
    champion[:9] = 1  # wrong where the challenger is right
    challenger[9:12] = 1
    compared = compare(TASKS["sst2"], {"validation": (labels, challenger)}, {"validation": (labels, champion)}, 0.05)
    assert (compared["challenger_only"], compared["champion_only"]) == (9, 3)
    assert compared["p_value"] == pytest.approx(2 * sum(comb(12, k) for k in range(4)) / 2**12)
    assert compared["difference"] == pytest.approx(6 / 40)


def test_a_few_rows_without_any_disagreement_prove_nothing() -> None:
    labels = np.tile([0, 1], 20)
    same = {"validation": (labels, labels)}
    assert compare(TASKS["sst2"], same, same, 0.01)["low"] <= -0.01
    many = {"validation": (np.tile([0, 1], 2000),) * 2}
    assert compare(TASKS["sst2"], many, many, 0.01)["low"] > -0.01


@pytest.mark.parametrize(("name", "margin"), [("sst2", 0.02), ("mrpc", 0.03)])
def test_a_model_worse_by_the_margin_hardly_ever_passes_and_an_equal_one_does(name: str, margin: float) -> None:
    random = np.random.default_rng(2)

    def passes(truth: Truth, rows: int) -> bool:
        labels, challenger, champion = truth.draw(rows, random)
        compared = compare(TASKS[name], {"validation": (labels, challenger)}, {"validation": (labels, champion)}, margin)
        return bool(compared["low"] > -margin)

    equal, worse = Truth(TASKS[name], 0.9, 0.06, 0.0), Truth(TASKS[name], 0.9, 0.06, margin)
    labels, challenger, champion = equal.draw(2000, random)
    compared = compare(TASKS[name], {"validation": (labels, challenger)}, {"validation": (labels, champion)}, margin)
    assert np.mean([passes(worse, 400) for _ in range(200)]) <= 0.07  # 1,000 of each in benchmarks/gate.py
    assert np.mean([passes(equal, compared["recommended_rows"]) for _ in range(200)]) >= 0.85


def test_the_first_model_passes_if_it_beats_the_most_frequent_answer(variant: Callable[..., Path]) -> None:
    assert decide(variant(40), None, CRITERIA).promote
    refused = decide(variant(22), None, CRITERIA)
    assert not refused.promote
    assert "does not beat 0.5000" in str(refused)


def test_a_worse_model_is_refused_and_a_better_one_passes(variant: Callable[..., Path]) -> None:
    champion = variant(38)
    worse = decide(variant(28), champion, CRITERIA, "3")
    assert not worse.promote
    assert str(worse).startswith("stays challenger: not shown to be within 0.05 of version 3: difference -0.")
    better = decide(variant(48), champion, CRITERIA, "3")
    assert better.promote
    assert better.comparison is not None
    assert better.comparison["champion_only"] == 0
    assert json.loads(json.dumps(better.as_dict()))["champion"] == "3"


def test_few_rows_say_how_many_it_would_take(variant: Callable[..., Path]) -> None:
    refused = decide(variant(38), variant(37), Criteria(0.001, 0.0, 0.0), "1")
    assert not refused.promote
    assert "rows would make it 92%" in str(refused)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"labels": ["positive", "negative"]}, r"its labels are \['negative', 'positive'\]"),
        ({"splits": {}}, r"measured on other examples \(validation\)"),
    ],
)
def test_models_of_other_labels_or_other_examples_are_not_compared(
    variant: Callable[..., Path], changes: dict[str, Any], reason: str
) -> None:
    if "splits" in changes:
        splits = json.loads((variant(38) / "metrics.json").read_text())["splits"]
        splits["validation"]["digest"] = "of other rows"
        changes = {"splits": splits}
    decision = decide(variant(46, **changes), variant(38), CRITERIA, "7")
    assert not decision.promote
    assert decision.comparison is None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(str(decision))


def test_floors_hold_for_everyone(variant: Callable[..., Path]) -> None:
    refused = decide(variant(38), None, Criteria(0.05, 0.99, 0.0))
    assert "below champion_min_score 0.99" in str(refused)
    robust = decide(variant(38), None, Criteria(0.05, 0.0, 1.0))
    assert "below champion_min_robustness 1" in str(robust)
    splits = json.loads((variant(38) / "metrics.json").read_text())["splits"]
    del splits["validation"]["robustness"]
    assert "was not measured" in str(decide(variant(38, splits=splits), None, Criteria(0.05, 0.0, 0.5)))


@pytest.mark.parametrize("criteria", [(-0.1, 0, 0), (1.5, 0, 0), (0.1, 2, 0), (0.1, 0, -3)])
def test_criteria_that_cannot_be_are_refused(criteria: tuple[float, float, float]) -> None:
    with pytest.raises(UserError, match="champion_"):
        Criteria(*criteria)
