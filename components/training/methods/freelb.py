"""FreeLB: the gradients of every ascent pass are averaged (Zhu et al., arXiv 1909.11764, algorithm 1).

    min_theta  1/m * sum_{a=1..m} L(f(e(x) + delta_a), y),     delta_a+1 = Proj_omega( delta_a + rho * g / ||g|| )

with g the gradient at delta_a that the same backward pass gives for free: m passes act like m perturbed copies of the batch.

    perturbation_steps       m >= 1, all passes counted, as in the authors' transformers code; their fairseq code's K is m - 1.
    perturbation_init_norm   mag >= 0. The start is uniform: mag * U(-1, 1) / sqrt(tokens * hidden) in L2, so that its norm is
                             about mag / sqrt(3), or mag * U(-1, 1) in L-inf. The authors' 0 to 1; 0 makes the first pass clean.
    perturbation_step_size   rho >= 0. The authors' 0.02 to 0.2, L2 per sequence.
    perturbation_radius      omega >= 0. The authors' 0.14 to 0.7. Their code's 0, no projection, is 1e9 here.
    perturbation_norm, perturbation_scope
    perturbation_dropout     The authors keep the dropout masks over the passes: `shared`.

Cost of an update: m forward and m backward passes, m. Memory: one graph at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from components.parameters import PerturbationDropout
from components.training.budget import Progress
from components.training.method import Loss, Passes
from components.training.methods.perturbation import Perturbation

if TYPE_CHECKING:
    from torch import nn

    from components.training.data import Batch
    from components.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class FreeLB(Perturbation):
    part_names: ClassVar[tuple[str, ...]] = ()

    perturbation_steps: int = 3
    perturbation_init_norm: float = 0.1
    perturbation_step_size: float = 0.1
    perturbation_radius: float = 0.3
    perturbation_dropout: PerturbationDropout = "shared"

    def passes(self, progress: Progress) -> Passes:
        passes = self.perturbation_steps
        return Passes(forwards=passes, input_backwards=0, backwards=passes, num_losses=passes)

    def losses(self, objective: Objective, model: nn.Module, batch: Batch, progress: Progress) -> Iterator[Loss]:
        from components.training.noise import repeat_dropout, uniform_start

        repeat = repeat_dropout(self.perturbation_dropout, batch.input_ids.device)
        embed = model.get_input_embeddings()  # type: ignore[operator]
        noise = uniform_start(batch, embed.weight, self.perturbation_init_norm, self.perturbation_norm, progress)
        for left in reversed(range(self.perturbation_steps)):
            noise.requires_grad_(left > 0)
            repeat()
            outputs = objective.outputs(model, batch, embed(batch.input_ids) + noise)
            yield Loss(objective.losses(outputs, batch).sum() / self.perturbation_steps)
            if noise.grad is not None:  # of the loss just yielded; its scale cancels in the step
                noise = self.climb(noise.detach(), noise.grad, batch)
