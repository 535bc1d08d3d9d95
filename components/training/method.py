"""The seam of the methods: how a micro-batch becomes a loss. Imports no torch: what checks parameters need not have it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from components.training.budget import Progress, Work

if TYPE_CHECKING:
    from torch import Tensor, nn

    from components.training.data import Batch
    from components.training.objectives import Objective


@dataclass(frozen=True)
class Loss:
    """Sums over the micro-batch's examples, scalars in fp32 or fp64: the caller divides by the size of the global batch."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    """What `total` is made of, for the log."""


@dataclass(frozen=True)
class Passes:
    """What an update costs, in passes over its examples; a pass over a share of them counts as that share.

    input_backwards go back to the embeddings alone and make no weight gradient.  num_losses: calls of `backward`; one of them
    may be several backward passes.
    """

    forwards: float
    input_backwards: float
    backwards: float
    num_losses: int = 1

    @property
    def relative(self) -> float:
        """Cost in updates of plain training, where a backward pass is two forwards and one to the inputs is one forward."""
        return (self.forwards + self.input_backwards + 2 * self.backwards) / 3

    def work(self, examples: int, tokens: int, layers: int) -> Work:
        """Over so many examples, of so many tokens together."""
        passed = (self.forwards * tokens, self.input_backwards * tokens, self.backwards * tokens)
        return Work(*passed, examples=examples, tokens=tokens, layers=layers)


class Method(Protocol):
    """A frozen dataclass of hyperparameters, with defaults from its own paper or reference code, that checks them when made."""

    part_names: ClassVar[tuple[str, ...]]

    def passes(self, progress: Progress) -> Passes:
        """What the update at `progress` costs."""

    def losses(self, objective: Objective, model: nn.Module, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """The losses of `batch`, `passes(progress).num_losses` of them, whose gradients add up to the update's.

        The caller calls `backward` on each before it asks for the next: a method may make one loss of the gradients of
        another.
        """
