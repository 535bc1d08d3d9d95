"""Plain fine-tuning: the task's loss on the clean input.

    min_theta  L(f(x), y)

Cost of an update: 1 forward and 1 backward pass, 1 by definition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from components.training.budget import Progress
from components.training.method import Loss, Passes

if TYPE_CHECKING:
    from torch import nn

    from components.training.data import Batch
    from components.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Plain:
    part_names: ClassVar[tuple[str, ...]] = ()

    def passes(self, progress: Progress) -> Passes:
        return Passes(forwards=1, input_backwards=0, backwards=1)

    def losses(self, objective: Objective, model: nn.Module, batch: Batch, progress: Progress) -> Iterator[Loss]:
        yield Loss(objective.losses(objective.outputs(model, batch), batch).sum())
