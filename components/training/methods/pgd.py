"""PGD-K: train on the worst input that K steps of projected gradient ascent find (Madry et al., arXiv 1706.06083, eq. 2.1).

    min_theta  L(f(e(x) + delta_K), y),     delta_k+1 = Proj_omega( delta_k + rho * g / ||g|| )

with g the gradient of L at delta_k, on the word embeddings e(x), as FreeLB's `std_adv_train_step` has it. The clean loss never
appears: only the perturbed input is trained on. The noise is a constant in the outer step. It is there from the first update.

    perturbation_steps       K >= 1. Try 1, 2, 3.
    perturbation_init        `normal`; or `uniform`, the start of FreeLB's PGD, with the values of its paper for the others.
    perturbation_init_std    sigma >= 0: 0 starts at the clean input, which has a direction here, unlike in ScaLA.
    perturbation_init_norm   mag >= 0, of the uniform start: mag * U(-1, 1) / sqrt(tokens * hidden) in L2, as FreeLB's.
    perturbation_step_size   rho >= 0. Try 0.03 to 0.2, L2 per sequence.
    perturbation_radius      omega >= 0. Try 0.15 to 0.7, L2 per sequence. 1e9 does not project.
    perturbation_norm, perturbation_scope, perturbation_dropout

Cost of an update: K + 1 forward passes, K backward passes to the inputs alone and 1 backward pass, (2K + 3) / 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from components.parameters import PerturbationInit
from components.training.budget import Progress
from components.training.method import Loss, Passes
from components.training.methods.perturbation import Perturbation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from components.training.data import Batch
    from components.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Pgd(Perturbation):
    part_names: ClassVar[tuple[str, ...]] = ()

    perturbation_steps: int = 2
    perturbation_init: PerturbationInit = "normal"
    perturbation_init_std: float = 0.001
    perturbation_init_norm: float = 0.1
    perturbation_step_size: float = 0.1
    perturbation_radius: float = 0.3

    def passes(self, progress: Progress) -> Passes:
        return Passes(forwards=self.perturbation_steps + 1, input_backwards=self.perturbation_steps, backwards=1)

    def losses(self, objective: Objective, model: nn.Module, batch: Batch, progress: Progress) -> Iterator[Loss]:
        from components.training.noise import repeat_dropout

        repeat = repeat_dropout(self.perturbation_dropout, batch.input_ids.device)
        embeddings = model.get_input_embeddings()(batch.input_ids)  # type: ignore[operator]
        noise = self.start(batch, embeddings, progress)
        climbed = partial(objective.losses, batch=batch)
        noise = self.ascend(objective, model, embeddings, batch, noise, climbed, repeat)
        repeat()
        yield Loss(objective.losses(objective.outputs(model, batch, embeddings + noise), batch).sum())

    def start(self, batch: Batch, embeddings: Tensor, progress: Progress) -> Tensor:
        """embeddings: (batch, token, hidden), that the noise is for."""
        from components.training.noise import normal_noise, uniform_start

        if self.perturbation_init == "uniform":
            return uniform_start(batch, embeddings, self.perturbation_init_norm, self.perturbation_norm, progress)
        return normal_noise(batch, embeddings.shape[-1], self.perturbation_init_std, progress).to(embeddings.dtype)
