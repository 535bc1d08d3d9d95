"""Plain fine-tuning: the task's loss on the clean input.

    min_theta  L(f(x), y)

Cost of an update: 1 forward and 1 backward pass, 1 by definition.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from components.training.data import Batch
from components.training.methods import Loss, Passes, Progress, task_losses


@dataclass(frozen=True, kw_only=True)
class Plain:
    part_names: ClassVar[tuple[str, ...]] = ()

    def passes(self, progress: Progress) -> Passes:
        return Passes(forwards=1, input_backwards=0, backwards=1)

    def losses(self, model: nn.Module, batch: Batch, progress: Progress) -> Iterator[Loss]:
        logits = model(input_ids=batch.input_ids, **batch.context).logits
        yield Loss(task_losses(logits, batch.labels).sum())
