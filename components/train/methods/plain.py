"""Plain fine-tuning: the task's loss on the clean input. One forward and one backward pass an update."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from components.train.data import Batch
from components.train.methods import Loss, Progress, task_losses


@dataclass(frozen=True)
class Plain:
    part_names: ClassVar[tuple[str, ...]] = ()

    def loss(self, model: nn.Module, batch: Batch, progress: Progress) -> Loss:
        logits = model(input_ids=batch.input_ids, **batch.context).logits
        return Loss(task_losses(logits, batch.labels).sum())
