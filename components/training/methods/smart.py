"""SMART's smoothness term: predictions must not change under small noise (Jiang et al., arXiv 1911.03437, equation 1).

    min_theta  L(f(e(x)), y) + lambda * D(f(e(x)), f(e(x) + delta)),     delta = argmax_{||delta|| <= omega} D(...)

by K steps of projected gradient ascent from a random start, at every update. SMART's other part, the Bregman proximal point
update, is left out. This is the paper's, with a projection onto the radius, and no noise on padding.

The authors' code is not adversarial. With its defaults an ascent step is 5e-8 to 5e-6 long, from a start of 3e-5: the noise has
a cosine of 0.994 to its random start and of 0 to the gradient. It is then scaled to an L-inf norm near 1, whatever its radius
says, and added to embeddings after their LayerNorm, which are embedded a second time. What comes nearest to it here is random
noise: perturbation_step_size 0, perturbation_init_std 0.03 and a large radius.

    perturbation_steps        K >= 1. The paper's 1.
    perturbation_init_std     sigma > 0. The authors' 1e-5; at no noise the divergence has no direction.
    perturbation_step_size    rho >= 0. The authors' 1e-3 (L-inf per token).
    perturbation_radius       omega >= 0. The paper's 1e-5.
    perturbation_norm, perturbation_scope   The authors' `linf` and `token`.
    perturbation_divergence   The authors' symmetric KL; squared difference for scores.
    perturbation_weight       lambda >= 0. Try 1, 3, 5.
    perturbation_dropout

Cost of an update: K + 2 forward passes, K backward passes to the inputs alone and 2 backward passes, (2K + 6) / 3: 2.67 for
K = 1. Memory: two graphs live until the backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from components.errors import UserError
from components.parameters import Divergence, PerturbationNorm, PerturbationScope
from components.training.budget import Progress
from components.training.method import Loss, Passes
from components.training.methods.perturbation import Perturbation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from components.training.data import Batch
    from components.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Smart(Perturbation):
    part_names: ClassVar[tuple[str, ...]] = ("task_loss", "divergence")

    perturbation_steps: int = 1
    perturbation_init_std: float = 1e-5
    perturbation_step_size: float = 1e-3
    perturbation_radius: float = 1e-5
    perturbation_norm: PerturbationNorm = "linf"
    perturbation_scope: PerturbationScope = "token"
    perturbation_divergence: Divergence = "symmetric_kl"
    perturbation_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.climbs_divergence and self.perturbation_init_std == 0:
            raise UserError("perturbation_init_std must be above 0: at no noise a divergence has no direction to climb")

    @property
    def climbs_divergence(self) -> bool:
        return self.perturbation_step_size > 0 and self.perturbation_divergence != "label"

    def passes(self, progress: Progress) -> Passes:
        steps = self.perturbation_steps if self.perturbation_step_size > 0 else 0
        return Passes(forwards=steps + 2, input_backwards=steps, backwards=2)

    def losses(self, objective: Objective, model: nn.Module, batch: Batch, progress: Progress) -> Iterator[Loss]:
        from components.training.noise import repeat_dropout

        repeat = repeat_dropout(self.perturbation_dropout, batch.input_ids.device)
        embeddings = model.get_input_embeddings()(batch.input_ids)  # type: ignore[operator]
        clean = objective.outputs(model, batch, embeddings)  # serves both the task's loss and as the target
        task_loss = objective.losses(clean, batch).sum()
        noise = self.find_noise(objective, model, embeddings, clean, batch, progress, repeat)
        divergence = self.divergence(objective, model, embeddings + noise, clean, batch, repeat)
        yield Loss(task_loss + self.perturbation_weight * divergence, {"task_loss": task_loss, "divergence": divergence})

    def find_noise(
        self,
        objective: Objective,
        model: nn.Module,
        embeddings: Tensor,
        clean: Tensor,
        batch: Batch,
        progress: Progress,
        repeat: Callable[[], None],
    ) -> Tensor:
        """The noise that the prediction on it is far from `clean`: (batch, token, hidden), a constant."""
        from components.training.noise import normal_noise

        noise = normal_noise(batch, embeddings.shape[-1], self.perturbation_init_std, progress).to(embeddings.dtype)
        if self.perturbation_step_size == 0:
            return self.clip(noise, batch)

        def climbed(noisy: Tensor) -> Tensor:
            return objective.divergence(self.perturbation_divergence, clean, noisy, batch, ascent=True)

        return self.ascend(objective, model, embeddings, batch, noise, climbed, repeat)

    def divergence(
        self, objective: Objective, model: nn.Module, noisy: Tensor, clean: Tensor, batch: Batch, repeat: Callable[[], None]
    ) -> Tensor:
        """Sum over the batch of the divergence between `clean` and the prediction on the `noisy` embeddings."""
        repeat()
        outputs = objective.outputs(model, batch, noisy)
        return objective.divergence(self.perturbation_divergence, clean, outputs, batch).sum()
