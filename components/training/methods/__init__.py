"""How a micro-batch becomes a loss. One seam for every method: `losses(model, batch, progress)`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.training.data import Batch


@dataclass(frozen=True)
class Progress:
    """Where the run stands: update `update` (from 0) of `num_updates`."""

    update: int
    num_updates: int
    seed: int


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


class Method(Protocol):
    """A frozen dataclass that checks its own fields when it is made; they have the names of the training stage's parameters."""

    part_names: ClassVar[tuple[str, ...]]

    def passes(self, progress: Progress) -> Passes:
        """What the update at `progress` costs."""

    def losses(self, model: nn.Module, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """The losses of `batch`, `passes(progress).num_losses` of them, whose gradients add up to the update's.

        The caller calls `backward` on each before it asks for the next: a method may make one loss of the gradients of
        another. `model` may be wrapped in DDP: a forward whose loss is yielded goes through the wrapper, any other around it.
        """


def task_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Per example: cross-entropy for classes (int64 labels), squared error for scores.  logits: (batch, outputs)."""
    if labels.is_floating_point():
        return (at_least_fp32(logits).squeeze(-1) - labels).square()
    return F.cross_entropy(at_least_fp32(logits), labels, reduction="none")


def at_least_fp32(values: Tensor) -> Tensor:
    """bf16 and fp16 to fp32; fp64 stays."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def bare_model(model: nn.Module) -> nn.Module:
    """The model without its DDP wrapper."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, nn.Module)
    return inner
