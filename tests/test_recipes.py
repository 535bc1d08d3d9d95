"""Every recipe holds what it says, and gives way to what is asked for."""

from typing import Any

import pytest
from support import run_module

from components.errors import UserError
from components.recipes import FEW_ROWS, RECIPES, choose_recipe
from components.train.settings import check, default_batch_size, settle
from components.training.methods import METHODS
from components.training.optimizers import OPTIMIZERS, peak_learning_rate

with_recipes = pytest.mark.parametrize("name", RECIPES)
with_rows = pytest.mark.parametrize("num_rows", [0, 10**6])


@with_rows
@with_recipes
def test_every_recipe_settles_to_its_values(name: str, num_rows: int) -> None:
    settled = settle({"recipe": name}, num_rows)
    rule = {"global_batch_size": default_batch_size(num_rows)}
    for key, value in RECIPES[name].values.items():
        assert settled.values[key] == value or (value, settled.values[key]) == (0, rule.get(key)), key
    assert settled.method == METHODS[RECIPES[name].values["method"]](
        **{key: value for key, value in RECIPES[name].values.items() if key.startswith("perturbation_")}
    )
    assert settled.training.optimizer in OPTIMIZERS
    assert settled.training.num_epochs > 0
    assert settled.training.global_batch_size > 0
    assert str(settled) == f"recipe {name} (it was asked for)"
    assert settled.unused == ()


@with_rows
@with_recipes
def test_what_is_settled_settles_to_itself(name: str, num_rows: int) -> None:
    """As where the pipeline's first step settles it and the training reads that."""
    once = settle({"recipe": name, "learning_rate": 3e-4}, num_rows)
    assert settle(once.values, num_rows) == once
    once = settle({"recipe": name}, num_rows)
    assert settle(once.values, num_rows) == once


OVERRIDES: dict[str, Any] = {
    "method": "smart",
    "optimizer": "lamb",
    "num_epochs": 0.5,
    "num_updates": 7,
    "learning_rate": 3e-4,
    "base_batch_size": 48,
    "global_batch_size": 77,
    "warmup_ratio": 0.0,
    "dropout": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
    "perturbation_radius": 0.0,
    "perturbation_norm": "l2",
    "perturbation_weight": 4.0,
}


@with_rows
@with_recipes
def test_what_is_given_stands(name: str, num_rows: int) -> None:
    settled = settle({"recipe": name, **OVERRIDES}, num_rows)
    assert OVERRIDES.items() <= settled.values.items()
    changed = [key for key, value in RECIPES[name].values.items() if value and OVERRIDES.get(key, value) != value]
    changed = [key for key in changed if not key.startswith("perturbation_") or RECIPES[name].values["method"] == "smart"]
    assert str(settled) == f"recipe {name} (it was asked for), but for {', '.join(changed)}"
    for key, value in OVERRIDES.items():
        alone = settle({"recipe": name, "method": "smart", key: value}, num_rows)
        assert alone.values[key] == value


@with_recipes
def test_the_empty_value_is_as_none_given(name: str) -> None:
    empty: dict[str, Any] = {"method": "", "optimizer": "", "num_epochs": 0.0, "learning_rate": 0.0, "global_batch_size": 0}
    assert settle({"recipe": name, **empty, "perturbation_radius": None}, 10**6) == settle({"recipe": name}, 10**6)


@with_recipes
def test_another_learning_rate_is_for_the_batch_that_is_used(name: str) -> None:
    training = settle({"recipe": name, "learning_rate": 3e-4, "global_batch_size": 512}, 10**6).training
    assert training.base_batch_size == 512
    assert peak_learning_rate(training.optimizer, training.learning_rate, 512, training.base_batch_size) == 3e-4
    training = settle({"recipe": name, "learning_rate": 3e-4, "base_batch_size": 128, "global_batch_size": 512}, 10**6).training
    assert peak_learning_rate(training.optimizer, training.learning_rate, 512, training.base_batch_size) == 6e-4


@with_recipes
def test_another_optimizer_has_a_rate_of_its_own(name: str) -> None:
    for other in set(OPTIMIZERS) - {RECIPES[name].values["optimizer"]}:
        training = settle({"recipe": name, "optimizer": other}, 10**6).training
        assert (training.learning_rate, training.base_batch_size) == (OPTIMIZERS[other].learning_rate, 32)
        assert (training.adam_epsilon, training.beta1, training.beta2) == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "updates", "epsilon", "decays"),
    [("roberta", 1560, 1e-6, True), ("mosbach", 3120, 1e-6, False), ("freelb-rte", 2036, 1e-6, True)],
)
def test_published_recipes_are_as_long_as_they_were_on_rte(name: str, updates: int, epsilon: float, decays: bool) -> None:
    """Of 2,490 rows."""
    training = settle({"recipe": name}, 2490).training
    assert (training.num_updates or round(training.num_epochs * 156)) == updates
    assert (training.adam_epsilon, training.decay_vectors, training.global_batch_size) == (epsilon, decays, 16)
    assert peak_learning_rate("adamw", training.learning_rate, 16, training.base_batch_size) == training.learning_rate


@with_recipes
def test_another_method_has_noise_of_its_own(name: str) -> None:
    for method, kind in METHODS.items():
        if method != RECIPES[name].values["method"]:
            assert settle({"recipe": name, "method": method}, 10**6).method == kind()


@with_rows
def test_without_a_name_the_number_of_rows_chooses(num_rows: int) -> None:
    name, why = choose_recipe(num_rows)
    settled = settle({}, num_rows)
    assert settled.training.recipe == name == ("plain" if num_rows else "few-rows")
    assert str(settled) == f"recipe {name} ({why})"
    assert settled.values == settle({"recipe": name}, num_rows).values


def test_what_is_not_as_the_recipe_has_it_is_named() -> None:
    given = {"recipe": "scala-every-update", "perturbation_start": 0.25, "global_batch_size": 64, "seed": 3}
    assert str(settle(given, 0)) == "recipe scala-every-update (it was asked for), but for perturbation_start"


def test_few_rows_are_fewer_than_ten_thousand() -> None:
    assert [choose_recipe(rows)[0] for rows in (0, FEW_ROWS - 1, FEW_ROWS)] == ["few-rows", "few-rows", "plain"]
    assert choose_recipe(2490)[1] == "2,490 training rows are fewer than 10,000"
    training = settle({}, 2490).training
    assert (training.method, training.optimizer, training.global_batch_size, training.num_epochs) == ("plain", "adamw", 16, 10)
    assert peak_learning_rate("adamw", training.learning_rate, 16, training.base_batch_size) == 2e-5


def test_what_a_method_has_no_use_for_is_named() -> None:
    settled = settle({"method": "rdrop", "perturbation_radius": 0.2, "perturbation_weight": 2.0, "perturbation_start": 0.0}, 0)
    assert settled.unused == ("perturbation_radius", "perturbation_start")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": "scalar"}, "recipe is 'scalar': give one of plain, few-rows, "),
        ({"method": "sgd"}, "method is 'sgd': give one of plain, scala, "),
        ({"optimizer": "sgd"}, "optimizer is 'sgd': give one of adamw, lamb"),
        ({"num_epochs": -1}, "num_epochs is -1"),
        ({"recipe": "plain", "perturbation_radius": -1.0}, "perturbation_radius is -1.0"),
        ({"recipe": "scala", "perturbation_init_std": 0.0}, "perturbation_init_std must be above 0"),
    ],
)
def test_what_is_wrong_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(given)


def test_the_recipes_are_listed_with_their_sources() -> None:
    listed = run_module("components.recipes").stdout
    for name, recipe in RECIPES.items():
        assert f"{name}: {recipe.good_for}\n" in listed
        assert recipe.source in listed
