"""How much of a run is over, and what it cost, add up."""

import json
from functools import reduce

import pytest

from components.training.budget import Spent, Updates, Work
from components.training.method import Passes

WORKS = [
    Work(100.0, 50.0, 200.0, examples=4, tokens=100, layers=6),
    Work(30.5, 0.0, 30.5, examples=2, tokens=30, layers=6),
    Work(80.0, 0.0, 80.0, examples=4, tokens=80, layers=3),
]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_a_number_of_updates_is_spent_in_equal_steps(count: int) -> None:
    budget, spent, shares = Updates(count), Spent(), []
    while budget.share(spent) < 1:
        shares.append(budget.share(spent))
        assert shares[-1] + budget.step(spent) == pytest.approx(budget.share(spent.plus(Work())))
        spent = spent.plus(Work())
    assert shares == [update / count for update in range(count)]
    assert (spent.updates, budget.share(spent)) == (count, 1.0)


def test_works_of_as_many_layers_add_up() -> None:
    assert WORKS[0] + WORKS[1] == Work(130.5, 50.0, 230.5, examples=6, tokens=130, layers=6)
    assert Work(layers=6) + WORKS[0] == WORKS[0]
    assert WORKS[1] + WORKS[0] == WORKS[0] + WORKS[1]


def test_what_is_spent_is_kept_by_the_layers_that_computed() -> None:
    spent = reduce(Spent.plus, WORKS, Spent())
    assert spent == Spent(3, {6: WORKS[0] + WORKS[1], 3: WORKS[2]})
    assert spent.examples == 10
    assert Spent() == Spent(0, {})  # what came before is left alone


def test_what_is_spent_goes_through_json() -> None:
    for count in range(4):
        spent = reduce(Spent.plus, WORKS[:count], Spent())
        assert Spent.of(json.loads(json.dumps(spent.as_dict()))) == spent


def test_passes_are_work_over_their_tokens() -> None:
    passes = Passes(forwards=3, input_backwards=1, backwards=2)
    assert passes.work(4, 50, 6) == Work(150, 50, 100, examples=4, tokens=50, layers=6)
    assert Passes(forwards=1.5, input_backwards=0, backwards=1.5).work(4, 50, 6).forwards == 75
