"""Everything that is random in a training comes from one place, by what it is for."""

import ast
import itertools
from pathlib import Path

import pytest
import torch
from support import ROOT

from components.training.randomness import CHOICE, DROPOUT, NEW_LAYERS, NOISE, ORDER, generator_seed, key, uniform

PURPOSES = (CHOICE, NOISE, ORDER, DROPOUT, NEW_LAYERS)
ROWS = torch.arange(1000)


def test_a_key_is_another_for_each_seed_purpose_update_and_row() -> None:
    keys = torch.stack(
        [key(seed, purpose, update, ROWS) for seed, purpose, update in itertools.product((0, 1), (1, 2), (0, 1))]
    )
    assert len(keys.unique()) == keys.numel()


def test_a_key_does_not_depend_on_the_rows_beside_it() -> None:
    alone = torch.cat([key(3, NOISE, 7, row) for row in ROWS.split(1)])
    assert torch.equal(alone, key(3, NOISE, 7, ROWS))


def test_positions_have_keys_of_their_own() -> None:
    positions = torch.arange(1, 101)
    keys = key(3, NOISE, 7, ROWS[:, None], positions)
    assert keys.shape == (1000, 100)
    assert len(keys.unique()) == keys.numel()
    assert torch.equal(keys[5:6, 9:10], key(3, NOISE, 7, ROWS[5:6, None], positions[9:10]))


def test_uniform_numbers_are_uniform() -> None:
    numbers = uniform(key(0, CHOICE, 0, torch.arange(100_000)))
    assert 0 <= float(numbers.min()) < float(numbers.max()) < 1
    assert float(numbers.mean()) == pytest.approx(0.5, abs=0.005)
    counts = (numbers * 10).long().bincount()
    assert ((counts - 10_000).square() / 10_000).sum() < 27.9  # chi-squared with 9 degrees of freedom: 1 in 1,000


@pytest.mark.parametrize("purpose", [ORDER, DROPOUT, 99])
def test_a_generators_seed_is_another_for_each_seed_and_update(purpose: int) -> None:
    seeds = [generator_seed(seed, purpose, update) for seed, update in itertools.product(range(20), range(20))]
    assert len(set(seeds)) == 400
    assert all(seed >= 0 for seed in seeds)


def test_nothing_in_a_training_is_seeded_otherwise() -> None:
    seeded = 0
    for path in sorted([*(ROOT / "components" / "training").rglob("*.py"), *(ROOT / "components" / "train").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and "seed" in node.func.attr:
                (argument,) = node.args
                assert isinstance(argument, ast.Call), f"{Path(path).name}:{node.lineno}"
                assert isinstance(argument.func, ast.Name), f"{Path(path).name}:{node.lineno}"
                assert argument.func.id == "generator_seed", f"{Path(path).name}:{node.lineno}"
                seeded += 1
    assert seeded == 3
