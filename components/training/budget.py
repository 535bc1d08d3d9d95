"""How long a run is, what of it is over, and what each update cost. Every schedule reads the share that is over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Progress:
    """Where a run stands before its update number `update` (from 0).

    share: of the budget that is spent, from 0 to below 1.  step: the share that this update will spend.
    """

    update: int
    share: float
    seed: int
    step: float = 0.0


@dataclass(frozen=True)
class Work:
    """What was computed, on all ranks together. Works of as many layers add up.

    forwards, input_backwards, backwards: tokens that went through each kind of pass; input_backwards go back to the embeddings
    alone and make no weight gradient.  examples, tokens: of the updates, however often they were passed.  layers: that
    computed.
    """

    forwards: float = 0.0
    input_backwards: float = 0.0
    backwards: float = 0.0
    examples: int = 0
    tokens: int = 0
    layers: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.forwards + other.forwards,
            self.input_backwards + other.input_backwards,
            self.backwards + other.backwards,
            self.examples + other.examples,
            self.tokens + other.tokens,
            self.layers,
        )


@dataclass(frozen=True)
class Spent:
    """What a run has spent so far.  by_layers: number of layers -> the work of all updates that computed as many."""

    updates: int = 0
    by_layers: Mapping[int, Work] = field(default_factory=dict)

    def plus(self, work: Work) -> "Spent":
        """After one more update."""
        before = self.by_layers.get(work.layers, Work(layers=work.layers))
        return Spent(self.updates + 1, {**self.by_layers, work.layers: before + work})

    @property
    def examples(self) -> int:
        return sum(work.examples for work in self.by_layers.values())

    @property
    def tokens(self) -> int:
        return sum(work.tokens for work in self.by_layers.values())

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold; `of` reads it."""
        return {"updates": self.updates, "works": [vars(work) for work in self.by_layers.values()]}

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> "Spent":
        works = [Work(**work) for work in written["works"]]
        return cls(written["updates"], {work.layers: work for work in works})


class Budget(Protocol):
    """How much a run may spend. It is over when the share is 1."""

    def share(self, spent: Spent) -> float:
        """Of the budget that is spent, from 0."""

    def step(self, spent: Spent) -> float:
        """The share that one more update is expected to spend."""


@dataclass(frozen=True)
class Updates:
    """A number of updates, whatever they cost."""

    count: int

    def share(self, spent: Spent) -> float:
        return spent.updates / self.count

    def step(self, spent: Spent) -> float:
        return 1 / self.count
