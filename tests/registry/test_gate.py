"""The gate: statistics against slow references, refusals, and how often it errs."""

import dataclasses
import json
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from gate import Truth, Walk

from components.errors import UserError
from components.registry.comparison import compare, paired_differences
from components.registry.criteria import Criteria
from components.registry.facing import Faced, face
from components.registry.gate import SURE, Decision, decide
from components.tasks.intervals import CONFIDENCE, point
from components.tasks.metrics import measure, score
from components.tasks.table import TASKS

CRITERIA = Criteria(0.05, 0.0, 0.0)


def against(challenger: Path, champion: Path | None, criteria: Criteria, version: str = "1") -> Decision:
    """The gate's decision, with one champion, which is the best too; or with none."""
    if champion is None:
        return decide(challenger, {}, criteria)
    try:
        rival: Faced | str = face(mlflow.MlflowClient(), "unasked", challenger, "2", champion, version)
    except UserError as error:
        rival = str(error)
    return decide(challenger, {version: rival}, criteria, version, version)


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


@pytest.mark.parametrize("name", list(TASKS))
def test_the_score_without_scikit_learn_is_that_with_it(name: str) -> None:
    task, random = TASKS[name], np.random.default_rng(3)
    if task.is_regression:
        labels, answers = random.standard_normal((2, 200)).round(1)
    else:
        labels, answers = random.integers(task.num_outputs, size=(2, 200))
    assert point(task, labels, answers) == pytest.approx(score(measure(task, labels, answers)), abs=1e-12)


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
    assert against(variant(40), None, CRITERIA).promote
    refused = against(variant(22), None, CRITERIA)
    assert not refused.promote
    assert "does not beat 0.5000" in str(refused)


def test_a_worse_model_is_refused_and_a_better_one_passes(variant: Callable[..., Path]) -> None:
    champion = variant(38)
    worse = against(variant(28), champion, CRITERIA, "3")
    assert not worse.promote
    assert str(worse).startswith("stays challenger: shown to be worse than version 3: difference -0.")
    unclear = against(variant(36), champion, CRITERIA, "3")
    assert str(unclear).startswith("stays challenger: not shown to be within 0.05 of version 3: difference -0.")
    better = against(variant(48), champion, CRITERIA, "3")
    assert better.promote
    assert better.becomes_best
    assert better.comparison is not None
    assert better.comparison["champion_only"] == 0
    assert json.loads(json.dumps(better.as_dict()))["champion"] == "3"


def test_few_rows_say_how_many_it_would_take(variant: Callable[..., Path]) -> None:
    refused = against(variant(38), variant(37), Criteria(0.001, 0.0, 0.0), "1")
    assert not refused.promote
    assert "rows would make it 92%" in str(refused)


def test_what_is_shown_to_be_worse_is_refused_whatever_the_margin(variant: Callable[..., Path]) -> None:
    assert "shown to be worse than version 1" in str(against(variant(28), variant(38), Criteria(0.9, 0.0, 0.0)))
    assert against(variant(37), variant(38), Criteria(0.9, 0.0, 0.0)).promote


def test_better_asks_for_a_model_that_is_shown_to_be_better(variant: Callable[..., Path]) -> None:
    better = Criteria(0.05, 0.0, 0.0, "better")
    refused = against(variant(40), variant(38), better)
    assert str(refused).startswith("stays challenger: not shown to be better than version 1: difference +0.0")
    assert "better than version 1" in str(against(variant(49), variant(38), better))


def test_the_champion_is_replaced_for_a_reason_and_no_worse_than_always_saying_the_same(variant: Callable[..., Path]) -> None:
    replace = Criteria(0.05, 0.0, 0.0, "replace", "labels were renamed")
    renamed = {"labels": ["bad", "good"]}
    refused = against(variant(48, **renamed), variant(38), CRITERIA)
    assert "its labels are ['negative', 'positive'], these are ['bad', 'good']" in str(refused)
    assert "--champion-rule replace --champion-reason" in str(refused)
    replaced = against(variant(48, **renamed), variant(38), replace)
    assert (replaced.promote, replaced.becomes_best) == (True, True)
    assert str(replaced) == "may be champion: it replaces version 1: labels were renamed"
    assert not against(variant(20, **renamed), variant(38), replace).promote
    assert not against(variant(30), variant(38), replace).becomes_best
    with pytest.raises(UserError, match="without a champion_reason"):
        Criteria(0.05, 0.0, 0.0, "replace", " ")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"labels": ["positive", "negative"]}, "its labels are ['negative', 'positive']"),
        ({"text_columns": ["subject"]}, "its text columns are ['sentence'], these are ['subject']"),
        ({"generated": ""}, "it is of generated data, and the other is not"),
    ],
)
def test_models_of_other_labels_columns_or_kinds_of_data_are_not_compared(
    variant: Callable[..., Path], changes: dict[str, Any], reason: str
) -> None:
    decision = against(variant(46, **changes), variant(38), CRITERIA, "7")
    assert not decision.promote
    assert decision.comparison is None
    assert reason in str(decision)


def test_rows_that_either_was_trained_on_do_not_count(variant: Callable[..., Path]) -> None:
    decision = against(variant(48, trained_on=10), variant(38, trained_on=6), CRITERIA)
    assert decision.comparison is not None
    assert decision.comparison["rows"] == 40
    assert decision.comparison["left_out"] == {"version 1": 6, "this one": 4}
    assert "40 rows, without 6 that version 1 was trained on, 4 that this one was trained on" in str(decision)
    none = against(variant(48, trained_on=50), variant(38), CRITERIA)
    assert not none.promote
    assert "0 rows, without 50 that this one was trained on; it takes about" in str(none)


def faced(challenger_right: int, rival_right: int, rows: int = 5000) -> Faced:
    """Two models of which one is right wherever the other is."""
    labels = np.arange(rows) % 2
    rights = (np.arange(rows) < right for right in (challenger_right, rival_right))
    challenger, rival = ({"validation": (labels, np.where(right, labels, 1 - labels))} for right in rights)
    return Faced(challenger, rival, challenger, rival, {}, False)


def test_a_model_must_not_be_worse_than_the_best_that_ever_was_champion(variant: Callable[..., Path]) -> None:
    criteria, model = Criteria(0.01, 0.0, 0.0), variant(48)
    crept = decide(model, {"2": faced(4480, 4480), "1": faced(4480, 4520)}, criteria, "2", "1")
    assert "not shown to be within 0.01 of version 1, the best champion so far: difference -0.0080" in str(crept)
    assert "99.75 %" in str(crept)
    passed = decide(model, {"2": faced(4510, 4480), "1": faced(4510, 4520)}, criteria, "2", "1")
    assert (passed.promote, passed.becomes_best) == (True, False)
    assert passed.best_comparison is not None
    best = decide(model, {"2": faced(4530, 4480), "1": faced(4530, 4520)}, criteria, "2", "1")
    assert (best.promote, best.becomes_best) == (True, True)
    again = decide(model, {"2": faced(4520, 4480)}, criteria, "2", "1")  # the best itself, once more
    assert (again.promote, again.becomes_best) == (True, False)


def test_on_other_rows_the_best_is_one_that_is_shown_to_be_better(variant: Callable[..., Path]) -> None:
    for right, becomes_best in ((4515, False), (4600, True)):
        anew = dataclasses.replace(faced(right, 4510), scored_anew=True)
        assert decide(variant(48), {"1": anew}, Criteria(0.01, 0.0, 0.0), "1", "1").becomes_best == becomes_best


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("worse_than", ["the one before", "the champion"])
def test_challengers_that_are_each_a_little_worse_do_not_walk_the_champion_down(worse_than: str, fresh: bool) -> None:
    """Ten thousand such rows of challengers are in benchmarks/gate.py."""
    drops = [Walk(np.random.default_rng(seed), fresh).go(0.6, worse_than) for seed in range(300)]
    assert np.mean(np.array(drops) <= 1) >= 0.975


def test_rows_of_challengers_are_compared_as_the_gate_does() -> None:
    walk = Walk(np.random.default_rng(0), fresh=False)
    labels = np.random.default_rng(1).integers(2, size=walk.rows)
    for loss in (0.0, 0.006):
        models = [walk.right(loss), walk.right(0.0)]
        answers = [{"validation": (labels, np.where(right, labels, 1 - labels))} for right in models]
        for confidence in (CONFIDENCE, SURE):
            drawn = compare(walk.task, answers[0], answers[1], walk.margin, confidence)
            fast = walk.compared(models[0], models[1], confidence)
            assert fast["difference"] == pytest.approx(drawn["difference"])
            assert [fast["low"], fast["high"]] == pytest.approx([drawn["low"], drawn["high"]], abs=0.0015)


def test_floors_hold_for_everyone(variant: Callable[..., Path]) -> None:
    refused = against(variant(38), None, Criteria(0.05, 0.99, 0.0))
    assert "below champion_min_score 0.99" in str(refused)
    robust = against(variant(38), None, Criteria(0.05, 0.0, 1.0))
    assert "below champion_min_robustness 1" in str(robust)
    splits = json.loads((variant(38) / "metrics.json").read_text())["splits"]
    del splits["validation"]["robustness"]
    assert "was not measured" in str(against(variant(38, splits=splits), None, Criteria(0.05, 0.0, 0.5)))


@pytest.mark.parametrize("criteria", [(-0.1, 0, 0), (1.5, 0, 0), (0.1, 2, 0), (0.1, 0, -3)])
def test_criteria_that_cannot_be_are_refused(criteria: tuple[float, float, float]) -> None:
    with pytest.raises(UserError, match="champion_"):
        Criteria(*criteria)
