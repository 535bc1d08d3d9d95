"""ScaLA: large batches kept accurate by cheap adversarial noise on the word embeddings.

    min_theta  L(f(e(x)), y) + lambda * D(f(e(x)), f(e(x) + delta)),   delta = argmax_{||delta||_2 <= omega} D(...)

The noise player answers the current weights with one step of projected gradient ascent from a random start; then the weights
move against that answer, which is a constant to them. The noise begins after a share t_s of the updates: until then this is
plain training, to the bit.

Our implementation of the published description (arXiv 2201.12469: a sequential game, lightweight noise, large batches), not a
reproduction: the paper has no public code. What it leaves open is a parameter, or was chosen here: D is the symmetric KL
divergence for classes and the squared difference for scores; the norm is L2 over a whole sequence; dropout is drawn anew in
each pass.

Cost of an update, in clean updates of one forward and one backward: 1 before t_s; after it 3 forwards, 2 backwards and one
backward to the input alone, which is 2.67 if a backward costs two forwards. Memory: two graphs live until the backward.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import UserError
from components.train.data import Batch
from components.train.methods import Loss, Progress, task_losses

TINY = 1e-12


def symmetric_kl(logits: Tensor, other: Tensor) -> Tensor:
    """KL(p, q) + KL(q, p) of the two softmax distributions, per example.  (batch, classes) -> (batch,), in fp32."""
    log_p, log_q = F.log_softmax(logits.float(), -1), F.log_softmax(other.float(), -1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


def mutual_kl(logits: Tensor, other: Tensor) -> Tensor:
    """The same value, where each side learns from the other as from a fixed target: KL(sg p, q) + KL(sg q, p)."""
    log_p, log_q = F.log_softmax(logits.float(), -1), F.log_softmax(other.float(), -1)
    p, q = log_p.detach().exp(), log_q.detach().exp()
    return (p * (log_p.detach() - log_q) + q * (log_q.detach() - log_p)).sum(-1)


def squared_difference(scores: Tensor, other: Tensor) -> Tensor:
    """Per example.  (batch, 1) -> (batch,), in fp32."""
    return (scores.float() - other.float()).square().squeeze(-1)


def sequence_norm(noise: Tensor) -> Tensor:
    """L2 norm over a sequence's tokens and dimensions.  (batch, token, hidden) -> (batch, 1, 1)."""
    return torch.linalg.vector_norm(noise, dim=(1, 2), keepdim=True)


def project(noise: Tensor, radius: float) -> Tensor:
    """Scale each sequence's noise back to L2 norm at most `radius` (omega).  noise: (batch, token, hidden)."""
    return noise * (radius / sequence_norm(noise).clamp(min=TINY)).clamp(max=1.0)


def random_noise(batch: Batch, hidden: int, std: float, progress: Progress) -> Tensor:
    """Normal noise, zero on padding: (batch, token, hidden) fp32.

    An example's noise is a function of the seed, the update and its row number (a counter-based generator keyed by them), so
    that neither the ranks nor the micro-batches change it.
    """
    noise = np.zeros((*batch.input_ids.shape, hidden), np.float32)
    lengths = batch.attention_mask.sum(1).tolist()
    for number, (row, length) in enumerate(zip(batch.rows.tolist(), lengths, strict=True)):
        key = (progress.seed, (progress.update << 32) + row)
        np.random.Generator(np.random.Philox(key=key)).standard_normal(out=noise[number, :length], dtype=np.float32)
    return torch.from_numpy(noise).mul_(std).to(batch.input_ids.device)


@dataclass(frozen=True)
class Scala:
    """The fields are the training stage's parameters of the same names; the symbols are the paper's."""

    part_names: ClassVar[tuple[str, ...]] = ("task_loss", "divergence")

    perturbation_start: float
    """t_s as a share of the updates, 0 to 1. Try 0, 0.25, 0.5, 0.75."""
    perturbation_init_std: float
    """sigma > 0. Try 1e-5, 1e-3, 1e-2."""
    perturbation_step_size: float
    """rho >= 0, L2 per sequence. Try 0.05, 0.1, 0.2. 0: random noise only."""
    perturbation_radius: float
    """omega >= 0, L2 per sequence. Try 0.1, 0.3, 0.7."""
    perturbation_weight: float
    """lambda >= 0. Try 0.5, 1, 3, 5."""

    def __post_init__(self) -> None:
        if not 0 <= self.perturbation_start <= 1:
            raise UserError(f"perturbation_start is {self.perturbation_start}: give a share of the updates, 0 to 1")
        for name in ("perturbation_step_size", "perturbation_radius", "perturbation_weight"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}: give 0 or more")
        if self.perturbation_init_std < 0 or (self.perturbation_init_std == 0 and self.perturbation_step_size > 0):
            # the divergence has its minimum at no noise: there its gradient is exactly zero
            raise UserError("perturbation_init_std must be above 0: at zero noise the ascent has no direction")

    def loss(self, model: nn.Module, batch: Batch, progress: Progress) -> Loss:
        logits = model(input_ids=batch.input_ids, **batch.context).logits
        task_loss = task_losses(logits, batch.labels).sum()
        if progress.share < self.perturbation_start:
            return Loss(task_loss, {"task_loss": task_loss, "divergence": torch.zeros_like(task_loss)})
        scores = batch.labels.is_floating_point()
        inner_divergence, outer_divergence = (squared_difference,) * 2 if scores else (symmetric_kl, mutual_kl)
        bare: Any = getattr(model, "module", model)
        embeddings = bare.get_input_embeddings()(batch.input_ids)
        noise = random_noise(batch, embeddings.shape[-1], self.perturbation_init_std, progress)

        # The inner pass goes around DDP, and its gradient through autograd.grad, not backward(): it is for the noise alone and
        # must not reach param.grad or start DDP's all-reduce.
        noise.requires_grad_()
        inner = bare(inputs_embeds=embeddings.detach() + noise, **batch.context).logits
        (gradient,) = torch.autograd.grad(inner_divergence(logits.detach(), inner).sum(), noise)
        step = self.perturbation_step_size * gradient / sequence_norm(gradient).clamp(min=TINY)
        noise = project(noise.detach() + step, self.perturbation_radius) * batch.attention_mask[..., None]

        noisy = model(inputs_embeds=embeddings + noise, **batch.context).logits
        divergence = outer_divergence(logits, noisy).sum()
        return Loss(task_loss + self.perturbation_weight * divergence, {"task_loss": task_loss, "divergence": divergence})
