"""What the methods with noise on the word embeddings have in common: its size, and the ascent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.parameters import PerturbationDropout, PerturbationNorm, PerturbationScope, check_fields

if TYPE_CHECKING:
    from torch import Tensor, nn

    from components.training.data import Batch
    from components.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    perturbation_steps: int
    """K, 1 or more. Try 1, 2, 3."""
    perturbation_step_size: float
    """rho >= 0, in the norm and scope below. Try 0.05, 0.1, 0.2 for L2 per sequence."""
    perturbation_radius: float
    """omega >= 0. Try 0.1, 0.3, 0.7 for L2 per sequence. 0 is no noise, 1e9 no projection."""
    perturbation_norm: PerturbationNorm = "l2"
    perturbation_scope: PerturbationScope = "sequence"
    """Whether the norm is taken over each sequence or over each token."""
    perturbation_dropout: PerturbationDropout = "independent"
    """Whether the passes of an update drop the same units."""

    def __post_init__(self) -> None:
        check_fields(self)

    def climb(self, noise: Tensor, gradient: Tensor, batch: Batch) -> Tensor:
        """One step of length rho along the gradient, and back into the radius."""
        from components.training.noise import direction_of

        direction = direction_of(gradient, self.perturbation_norm, self.perturbation_scope)
        return self.clip(noise + self.perturbation_step_size * direction, batch)

    def clip(self, noise: Tensor, batch: Batch) -> Tensor:
        from components.training.noise import project

        noise = project(noise, self.perturbation_radius, self.perturbation_norm, self.perturbation_scope)
        return noise * batch.attention_mask[..., None]

    def ascend(
        self,
        objective: Objective,
        model: nn.Module,
        embeddings: Tensor,
        batch: Batch,
        noise: Tensor,
        losses: Callable[[Tensor], Tensor],
        repeat: Callable[[], None],
    ) -> Tensor:
        """K steps of projected gradient ascent on `losses`, a function from outputs to (examples,), starting at `noise`."""
        from components.training.noise import noise_gradient

        for _ in range(self.perturbation_steps):
            repeat()
            gradient = noise_gradient(objective, model, embeddings, noise, batch, losses)
            noise = self.climb(noise.detach(), gradient, batch)
        return noise.detach()
