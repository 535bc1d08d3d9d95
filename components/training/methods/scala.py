"""ScaLA: large batches kept accurate by cheap adversarial noise on the word embeddings.

    min_theta  L(f(e(x)), y) + lambda * D(f(e(x)), f(e(x) + delta)),     delta = argmax_{||delta|| <= omega} D(...)

The noise player answers the current weights with one step of projected gradient ascent from a random start; then the weights
move against that answer, which is a constant to them. The noise begins after a share t_s of the updates: until then this is
plain training, to the bit.

Our implementation of the published description (arXiv 2201.12469: a sequential game, lightweight noise, large batches), not a
reproduction: the paper has no public code. It claims 2.7 to 9.8 times faster adaptation (BERT-base and RoBERTa-large on GLUE);
its version of 2021 does so on the same hardware, with 18 times on two DGX-2 nodes. No review confirms it. What it leaves open
is a parameter:

    perturbation_start        t_s, share of the updates, 0 to 1. Try 0, 0.25, 0.5, 0.75. 0: no delay.
    perturbation_steps        K >= 1. ScaLA's 1; try 2, 3.
    perturbation_init_std     sigma > 0. Try 1e-5, 1e-3, 1e-2; in bf16 1e-2, below which rounding hides what the noise does.
    perturbation_step_size    rho >= 0. Try 0.05, 0.1, 0.2 for L2 per sequence. 0: random noise only.
    perturbation_radius       omega >= 0. Try 0.1, 0.3, 0.7 for L2 per sequence. 0: no noise; what is left is dropout's.
    perturbation_norm         `l2`, or `linf`.
    perturbation_scope        The norm is taken over each `sequence`, or over each `token`.
    perturbation_divergence   D: `symmetric_kl`, `kl`, `js` or `mse` of the outputs; scores always have `mse`. `label`: the
                              task's loss of the noisy input in place of D, inside and out.
    perturbation_weight       lambda >= 0. Try 0.5, 1, 3, 5.
    perturbation_dropout      `independent`: drawn anew in each pass, so that part of what this does is what R-Drop does.
                              `shared`: every pass of an update drops the same units.

and, beyond the paper, cheaper forms:

    perturbation_direction    `divergence`: the step climbs D, with a pass of its own. `label`: it climbs the task's loss at the
                              clean input, whose gradient the clean backward pass gives for free; then the clean prediction is a
                              fixed target of D, and K is 1.
    perturbation_interval     Noise at every k-th update, 1 or more, counted from the first of the run.
    perturbation_fraction     Noise for this share of the examples, above 0 to 1, drawn anew at each update; D of these weighs
                              lambda / share, so that its mean is that of all examples.

Cost of an update: plain's before t_s. Then K + 2 forward passes, K backward passes to the inputs alone and 2 backward passes,
(2K + 6) / 3: 2.67 for K = 1, and 1.83 on average if it starts half way. 2 with direction `label` or step size 0. An interval k
pays for it once in k updates, a fraction c only for the share c of what is beyond the clean pass. Memory: two graphs live until
the backward, one with direction `label`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from components.errors import UserError
from components.parameters import PerturbationDirection, PerturbationNorm, PerturbationScope
from components.training.budget import Progress
from components.training.method import Loss, Passes
from components.training.methods.plain import Plain
from components.training.methods.smart import Smart

if TYPE_CHECKING:
    from torch import nn

    from components.training.data import Batch
    from components.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Scala(Smart):
    part_names: ClassVar[tuple[str, ...]] = ("task_loss", "divergence")

    perturbation_start: float = 0.5
    perturbation_init_std: float = 0.001
    perturbation_step_size: float = 0.1
    perturbation_radius: float = 0.3
    perturbation_norm: PerturbationNorm = "l2"
    perturbation_scope: PerturbationScope = "sequence"
    perturbation_direction: PerturbationDirection = "divergence"
    perturbation_interval: int = 1
    perturbation_fraction: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.perturbation_direction == "label" and self.perturbation_steps > 1:
            raise UserError(
                f"perturbation_steps is {self.perturbation_steps}: with perturbation_direction label there is one step, give 1"
            )
        if self.perturbation_dropout == "shared" and self.perturbation_fraction < 1:
            raise UserError("perturbation_dropout shared needs perturbation_fraction 1: a smaller batch draws other masks")

    @property
    def climbs_divergence(self) -> bool:
        return self.perturbation_direction == "divergence" and super().climbs_divergence

    def is_noisy(self, progress: Progress) -> bool:
        has_begun = progress.share >= self.perturbation_start - 1e-9  # half of 10 updates is 5, however it is rounded
        return has_begun and progress.update % self.perturbation_interval == 0

    def passes(self, progress: Progress) -> Passes:
        if not self.is_noisy(progress):
            return Plain().passes(progress)
        share = self.perturbation_fraction
        if self.perturbation_direction == "label":
            return Passes(forwards=1 + share, input_backwards=0, backwards=1 + share, num_losses=2)
        noisy = super().passes(progress)
        return Passes(1 + share * (noisy.forwards - 1), share * noisy.input_backwards, 1 + share)

    def losses(self, objective: Objective, model: nn.Module, batch: Batch, progress: Progress) -> Iterator[Loss]:
        if not self.is_noisy(progress):
            for loss in Plain().losses(objective, model, batch, progress):
                yield Loss(loss.total, {"task_loss": loss.total})
            return
        from components.training.noise import choose, normal_noise, repeat_dropout

        repeat = repeat_dropout(self.perturbation_dropout, batch.input_ids.device)
        embed = model.get_input_embeddings()  # type: ignore[operator]
        embeddings = embed(batch.input_ids)
        gradient = None
        if self.perturbation_direction == "label":
            embeddings.retain_grad()
        clean = objective.outputs(model, batch, embeddings)  # serves both the task's loss and as the target
        total = objective.losses(clean, batch).sum()
        parts = {"task_loss": total}
        if self.perturbation_direction == "label":
            yield Loss(total, parts)
            gradient, embeddings, clean = embeddings.grad, embed(batch.input_ids), clean.detach()
            total, parts = total.new_zeros(()), {}

        scale = 1 / self.perturbation_fraction
        if self.perturbation_fraction < 1:
            chosen = choose(batch, self.perturbation_fraction, progress)
            if not len(chosen):  # one that does not count: under DDP every rank runs the same passes
                chosen, scale = chosen.new_zeros(1), 0.0
            batch = batch.take(chosen)
            here = chosen.to(embeddings.device, non_blocking=True)
            embeddings, clean = embeddings[here], clean[here]
            gradient = None if gradient is None else gradient[here]
        if gradient is None:
            noise = self.find_noise(objective, model, embeddings, clean, batch, progress, repeat)
        else:
            noise = normal_noise(batch, embeddings.shape[-1], self.perturbation_init_std, progress).to(embeddings.dtype)
            noise = self.climb(noise, gradient, batch)
        divergence = scale * self.divergence(objective, model, embeddings + noise, clean, batch, repeat)
        yield Loss(total + self.perturbation_weight * divergence, {**parts, "divergence": divergence})
