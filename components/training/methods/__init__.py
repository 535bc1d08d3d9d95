"""METHODS: every way that a micro-batch becomes a loss, by name."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from components.training.method import Method
from components.training.methods.freelb import FreeLB
from components.training.methods.pgd import Pgd
from components.training.methods.plain import Plain
from components.training.methods.rdrop import RDrop
from components.training.methods.scala import Scala
from components.training.methods.smart import Smart

METHODS: Mapping[str, type[Method]] = {
    "plain": Plain,
    "scala": Scala,
    "smart": Smart,
    "pgd": Pgd,
    "freelb": FreeLB,
    "rdrop": RDrop,
}


def fields_of(method: str) -> tuple[str, ...]:
    """The hyperparameters that it has."""
    return tuple(field.name for field in fields(METHODS[method]))  # type: ignore[arg-type]


def build_method(method: str, given: Mapping[str, Any]) -> Method:
    """The method with what is `given` of its hyperparameters, which may hold others and None; else with its own defaults.

    Raises:
        UserError: a value that it does not take.
    """
    own = {name: value for name in fields_of(method) if (value := given.get(name)) is not None}
    return METHODS[method](**own)
