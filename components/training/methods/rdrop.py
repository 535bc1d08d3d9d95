"""R-Drop: two passes with different dropout, which must agree (Liang et al., arXiv 2106.14448, equation 4).

    min_theta  (L(a, y) + L(b, y)) / 2 + alpha * (KL(a, b) + KL(b, a)) / 2

with a and b the predictions under two draws of dropout; alpha is `perturbation_weight`. The paper sums the two cross-entropies;
like its authors' code we average them, so that the learning rate means what it means to plain training. Scores have the squared
difference in place of the divergence. A control for the methods with noise: what they gain with dropout drawn anew
in each pass may be this.

    perturbation_weight   alpha >= 0. Try 0.5, 1, 3, 5; the authors' for GLUE is 0.25 * B, 8 for batches of 32.

For in their BERT code for GLUE, the authors sum the divergence over the B examples of a batch, where this is the mean: with
their published weight it is 2 times this with 0.25 * B, and what it weighs grows with the batch. In their RoBERTa code only the
first of the two passes has a cross-entropy.

Cost of an update: 2 forward and 2 backward passes, 2. Memory: two graphs live until the backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from components.parameters import check_fields
from components.training.budget import Progress
from components.training.method import Loss, Passes

if TYPE_CHECKING:
    from torch import nn

    from components.training.data import Batch
    from components.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class RDrop:
    part_names: ClassVar[tuple[str, ...]] = ("task_loss", "divergence")

    perturbation_weight: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def passes(self, progress: Progress) -> Passes:
        return Passes(forwards=2, input_backwards=0, backwards=2)

    def losses(self, objective: Objective, model: nn.Module, batch: Batch, progress: Progress) -> Iterator[Loss]:
        one, two = (objective.outputs(model, batch) for _ in range(2))
        task_loss = (objective.losses(one, batch) + objective.losses(two, batch)).sum() / 2
        divergence = objective.divergence("mean_kl", one, two, batch).sum()
        yield Loss(task_loss + self.perturbation_weight * divergence, {"task_loss": task_loss, "divergence": divergence})
