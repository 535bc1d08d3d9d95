"""How a micro-batch becomes a loss. One seam for every method: `loss(model, batch, progress)`."""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from components.train.data import Batch


@dataclass(frozen=True)
class Progress:
    """Where the run stands: update `update` (from 0) of `num_updates`."""

    update: int
    num_updates: int
    seed: int

    @property
    def share(self) -> float:
        """Share of the updates that are done: 0 at the first."""
        return self.update / self.num_updates


@dataclass(frozen=True)
class Loss:
    """Sums over the micro-batch's examples, fp32 scalars: the caller divides by the size of the global batch."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    """What `total` is made of, for the log."""


class Method(Protocol):
    """A frozen dataclass that checks its own fields when it is made."""

    part_names: ClassVar[tuple[str, ...]]

    def loss(self, model: nn.Module, batch: Batch, progress: Progress) -> Loss:
        """The loss of `batch`. `model` may be wrapped in DDP: a forward that the loss needs goes through the wrapper."""


def task_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Per example: cross-entropy for classes (int64 labels), squared error for scores.  logits: (batch, outputs)."""
    if labels.is_floating_point():
        return (logits.float().squeeze(-1) - labels).square()
    return F.cross_entropy(logits.float(), labels, reduction="none")
