"""R-Drop: two passes with different dropout, which must agree (Liang et al., arXiv 2106.14448, equation 4).

    min_theta  (L(a, y) + L(b, y)) / 2 + alpha * (KL(a, b) + KL(b, a)) / 2

with a and b the predictions under two draws of dropout; alpha is `perturbation_weight`. The paper sums the two cross-entropies;
like its authors' code we average them, so that the learning rate means what it means to plain training. Scores have the squared
difference in place of the divergence. A control for the methods with noise: what they gain with dropout drawn anew
in each pass may be this.

    perturbation_weight   alpha >= 0. Try 0.5, 1, 3, 5.

Cost of an update: 2 forward and 2 backward passes, 2. Memory: two graphs live until the backward.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from components.training.data import Batch
from components.training.methods import Loss, Passes, Progress, task_losses
from components.training.methods.divergences import mse, symmetric_kl
from components.training.methods.noise import check_not_negative


@dataclass(frozen=True, kw_only=True)
class RDrop:
    part_names: ClassVar[tuple[str, ...]] = ("task_loss", "divergence")

    perturbation_weight: float

    def __post_init__(self) -> None:
        check_not_negative(self)

    def passes(self, progress: Progress) -> Passes:
        return Passes(forwards=2, input_backwards=0, backwards=2)

    def losses(self, model: nn.Module, batch: Batch, progress: Progress) -> Iterator[Loss]:
        one, two = (model(input_ids=batch.input_ids, **batch.context).logits for _ in range(2))
        task_loss = (task_losses(one, batch.labels) + task_losses(two, batch.labels)).sum() / 2
        divergence = mse(one, two).sum() if batch.labels.is_floating_point() else symmetric_kl(one, two).sum() / 2
        yield Loss(task_loss + self.perturbation_weight * divergence, {"task_loss": task_loss, "divergence": divergence})
