"""The settings of a training, and what of them takes effect once the number of training rows is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components import cli, parameters
from components.artifacts.provenance import Tracking
from components.launch.placement import Placement
from components.parameters import DepthKind, Precision, Scaling, check_choice, check_fields
from components.recipes import RECIPES, choose_recipe
from components.training.method import Method
from components.training.methods import METHODS, build_method, fields_of
from components.training.optimizers import OPTIMIZERS, base_rate, check_precision, peak_learning_rate

OF_METHODS = tuple(dict.fromkeys(name for method in METHODS for name in fields_of(method)))
"""The hyperparameters that some method has."""
OF_OPTIMIZERS = ("adam_epsilon", "beta1", "beta2", "sophia_rho", "hessian_interval")
"""What means another thing to another optimizer, besides the learning rate."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """The parameters of these names; the method's own are the method's."""

    model: str
    recipe: str
    method: str
    optimizer: str
    learning_rate: float
    base_batch_size: int
    learning_rate_scaling: Scaling
    warmup_ratio: float
    warmup_updates: int
    warmup_epochs: float
    weight_decay: float
    decay_vectors: bool
    adam_epsilon: float
    beta1: float
    beta2: float
    sophia_rho: float
    hessian_interval: int
    max_grad_norm: float
    dropout: float
    depth: DepthKind
    depth_keep: float
    depth_rate: float
    num_epochs: float
    num_updates: int
    global_batch_size: int
    micro_batch_tokens: int
    precision: Precision
    compile: bool
    seed: int
    log_interval: int
    checkpoint_minutes: float
    model_state: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        for name, table in (("recipe", RECIPES), ("method", METHODS), ("optimizer", OPTIMIZERS)):
            if value := getattr(self, name):
                check_choice(name, value, table)
        if self.optimizer:
            check_precision(self.optimizer, self.precision)


@dataclass(frozen=True)
class Settled:
    """What takes effect.  why: this recipe.  unused: what was given and the method has no use for."""

    training: Training
    method: Method
    why: str
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = self.training.recipe
        meant = {key: it for key, it in RECIPES[name].values.items() if not parameters.is_unset(key, it)}  # else a rule says
        goes_with = {"method": OF_METHODS, "optimizer": OF_OPTIMIZERS}  # their values are not named beside them
        gone = {each for name, its in goes_with.items() if self.values[name] != meant[name] for each in its}
        changed = [key for key, value in meant.items() if key not in gone and self.values.get(key, value) != value]
        return f"recipe {name} ({self.why})" + (f", but for {', '.join(changed)}" if changed else "")

    @property
    def in_numbers(self) -> str:
        """What is known before the run, in words."""
        it = self.training
        peak = peak_learning_rate(
            it.optimizer, it.learning_rate, it.global_batch_size, it.base_batch_size, it.learning_rate_scaling
        )
        length = f"{it.num_updates} updates" if it.num_updates else f"{it.num_epochs:g} epochs"
        return (
            f"learning rate {peak:.3g}, {length}, batches of {it.global_batch_size}; precision and micro-batches the run says"
        )

    @property
    def values(self) -> dict[str, Any]:
        """All of it by name, as `settle` takes it."""
        return {**vars(self.training), **vars(self.method)}


def as_given(settings: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a caller says: by a settings text, or by parameters.

    Raises:
        UserError: by both; or the text is none of a training.
    """
    return cli.given(settings, options, Training, optional=(*OF_METHODS, *cli.names_of(Placement, Tracking)))


def check(given: Mapping[str, Any]) -> None:
    """All that can be said before the number of training rows is known.

    Raises:
        UserError: a value that is none, or two that do not go together.
    """
    for num_rows in (0, 10**9) if not given.get("recipe") else (0,):
        settle(given, num_rows)


def settle(given: Mapping[str, Any], num_rows: int) -> Settled:
    """Fill in what recipe, method, optimizer and the number of training rows say; what is given stands.

    Raises:
        UserError: a value that is none, or two that do not go together.
    """
    given = {name: parameters.check(name, value) for name, value in given.items() if not parameters.is_unset(name, value)}
    name, why = (given["recipe"], "it was asked for") if "recipe" in given else choose_recipe(num_rows)
    check_choice("recipe", name, RECIPES)
    recipe = dict(RECIPES[name].values)
    if given.get("optimizer", recipe["optimizer"]) != recipe["optimizer"]:  # what it says is for its own optimizer
        recipe = {name: value for name, value in recipe.items() if name not in ("learning_rate", *OF_OPTIMIZERS)}
    if "learning_rate" in given or "learning_rate" not in recipe:  # the batch that the recipe's rate is for goes with it
        recipe.pop("base_batch_size", None)
    if given.get("method", recipe["method"]) != recipe["method"]:  # its noise is that of its own method
        recipe = {name: value for name, value in recipe.items() if name not in OF_METHODS}
    values = {**recipe, **given, "recipe": name}
    values["global_batch_size"] = values["global_batch_size"] or default_batch_size(num_rows)
    check_choice("optimizer", values["optimizer"], OPTIMIZERS)
    values["learning_rate"], values["base_batch_size"] = base_rate(
        values["optimizer"], values.get("learning_rate", 0.0), values["global_batch_size"], values.get("base_batch_size", 0)
    )
    training = cli.pick(Training, values)
    unused = tuple(name for name in given if name in OF_METHODS and name not in fields_of(training.method))
    return Settled(training, build_method(training.method, values), why, unused)


def default_batch_size(num_rows: int) -> int:
    """The largest power of two from 32 to 1024 that leaves 60 updates an epoch."""
    return max(size for size in (32, 64, 128, 256, 512, 1024) if size == 32 or num_rows >= 60 * size)
