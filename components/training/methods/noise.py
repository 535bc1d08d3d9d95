"""Noise on the word embeddings: its random start, its size, the ascent, and which examples get it.

Random numbers are functions of (seed, update, row, position), through SplitMix64's output function (Steele, Lea, Flood 2014) as
a hash: an example's noise depends neither on its rank nor on its micro-batch, and is made on the device where it is used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from components.errors import UserError
from components.parameters import PerturbationDropout, PerturbationNorm, PerturbationScope, check_choice
from components.training.data import Batch
from components.training.methods import Progress, at_least_fp32, bare_model

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # int64 arithmetic wraps around, as the hash wants it
MIX = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
CHOICE, NOISE = 1, 2


def scramble(bits: Tensor) -> Tensor:
    """SplitMix64's output function, elementwise on int64."""
    bits = (bits ^ _shift(bits, 30)) * MIX[0]
    bits = (bits ^ _shift(bits, 27)) * MIX[1]
    return bits ^ _shift(bits, 31)


def _shift(bits: Tensor, count: int) -> Tensor:
    return (bits >> count) & (2 ** (64 - count) - 1)  # torch shifts the sign in; here zeros are wanted


def example_keys(rows: Tensor, progress: Progress, purpose: int) -> Tensor:
    """A random int64 for each example and purpose at this update.  rows: (batch,) int64."""
    key = torch.zeros_like(rows)
    for number in (purpose, progress.seed, progress.update, rows):
        key = scramble(key + number + GOLDEN)
    return key


def _uniforms(batch: Batch, per_token: int, progress: Progress) -> tuple[Tensor, Tensor]:
    """Two times (batch, token, per_token) fp32, uniform on (0, 1]."""
    device = batch.input_ids.device
    keys = example_keys(batch.rows.to(device, non_blocking=True), progress, NOISE)
    positions = torch.arange(1, batch.input_ids.shape[1] * per_token + 1, device=device).view(-1, per_token)
    bits = scramble(keys[:, None, None] + positions * GOLDEN)
    return tuple((half + 1).float() * 2.0**-32 for half in (_shift(bits, 32), bits & (2**32 - 1)))  # type: ignore[return-value]


def normal_noise(batch: Batch, hidden: int, std: float, progress: Progress) -> Tensor:
    """Normal noise of standard deviation `std`, zero on padding: (batch, token, hidden) fp32 (Box and Muller 1958)."""
    first, second = _uniforms(batch, -(-hidden // 2), progress)
    length, angle = (-2 * first.log()).sqrt() * std, 2 * math.pi * second
    return torch.cat((length * angle.cos(), length * angle.sin()), -1)[..., :hidden] * batch.attention_mask[..., None]


def uniform_noise(batch: Batch, hidden: int, progress: Progress) -> Tensor:
    """Noise uniform on (-1, 1), zero on padding: (batch, token, hidden) fp32."""
    noise = torch.cat(_uniforms(batch, -(-hidden // 2), progress), -1)[..., :hidden]
    return (2 * noise - 1) * batch.attention_mask[..., None]


def choose(batch: Batch, fraction: float, progress: Progress) -> Tensor:
    """Indices of the examples that get noise at this update, each with probability `fraction`: (chosen,) int64, on the CPU."""
    uniform = _shift(example_keys(batch.rows, progress, CHOICE), 11).double() * 2.0**-53
    return (uniform < fraction).nonzero().squeeze(-1)


def noise_size(noise: Tensor, norm: PerturbationNorm, scope: PerturbationScope) -> Tensor:
    """Norm of each sequence's noise, (batch, 1, 1), or of each token's, (batch, token, 1).  noise: (batch, token, hidden)."""
    dims = (1, 2) if scope == "sequence" else (2,)
    if norm == "l2":
        return torch.linalg.vector_norm(noise, dim=dims, keepdim=True)
    return noise.abs().amax(dims, keepdim=True)


def project(noise: Tensor, radius: float, norm: PerturbationNorm, scope: PerturbationScope) -> Tensor:
    """The nearest noise whose norm is at most `radius` (omega): scaled back (L2), or clipped in each dimension (L-inf)."""
    if norm == "linf":
        return noise.clamp(-radius, radius)
    size = noise_size(noise, norm, scope)
    return noise * (radius / size.clamp(min=torch.finfo(noise.dtype).tiny)).clamp(max=1.0)


def repeat_dropout(kind: PerturbationDropout, device: torch.device) -> Callable[[], None]:
    """To be called before each pass.  `shared`: the pass drops what the first one drops; `independent`: no effect."""
    if kind == "independent":
        return lambda: None
    if device.type == "cuda":
        state = torch.cuda.get_rng_state(device)
        return lambda: torch.cuda.set_rng_state(state, device)
    state = torch.get_rng_state()
    return lambda: torch.set_rng_state(state)


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """What the methods with noise have in common."""

    perturbation_steps: int
    """K, 1 or more. Try 1, 2, 3."""
    perturbation_step_size: float
    """rho >= 0, in the norm and scope below. Try 0.05, 0.1, 0.2 for L2 per sequence."""
    perturbation_radius: float
    """omega >= 0. Try 0.1, 0.3, 0.7 for L2 per sequence. 0 is no noise."""
    perturbation_norm: PerturbationNorm
    perturbation_scope: PerturbationScope
    """Whether the norm is taken over each sequence or over each token."""
    perturbation_dropout: PerturbationDropout
    """Whether the passes of an update drop the same units."""

    def __post_init__(self) -> None:
        check_not_negative(self)
        if self.perturbation_steps < 1:
            raise UserError(f"perturbation_steps is {self.perturbation_steps}: give 1 or more")
        for name, choices in (
            ("perturbation_norm", PerturbationNorm),
            ("perturbation_scope", PerturbationScope),
            ("perturbation_dropout", PerturbationDropout),
        ):
            check_choice(name, getattr(self, name), choices)

    def climb(self, noise: Tensor, gradient: Tensor, batch: Batch) -> Tensor:
        """One step of length rho along the gradient, and back into the radius; none where the gradient is 0 or overflowed."""
        size = noise_size(gradient, self.perturbation_norm, self.perturbation_scope)
        direction = torch.where((size > 0) & size.isfinite(), gradient / size, 0.0)
        return self.clip(noise + self.perturbation_step_size * direction, batch)

    def clip(self, noise: Tensor, batch: Batch) -> Tensor:
        noise = project(noise, self.perturbation_radius, self.perturbation_norm, self.perturbation_scope)
        return noise * batch.attention_mask[..., None]

    def ascend(
        self,
        model: nn.Module,
        embeddings: Tensor,
        batch: Batch,
        noise: Tensor,
        losses: Callable[[Tensor], Tensor],
        repeat: Callable[[], None],
    ) -> Tensor:
        """K steps of projected gradient ascent on `losses`, a function from logits to (batch,), starting at `noise`.

        The pass goes around DDP, and its gradient through autograd.grad, not backward(): it is for the noise alone and must
        not reach param.grad or start an all-reduce. No weight gradient is computed.
        """
        for _ in range(self.perturbation_steps):
            noise = noise.detach().requires_grad_()
            repeat()
            logits = bare_model(model)(inputs_embeds=embeddings.detach() + noise, **batch.context).logits
            (gradient,) = torch.autograd.grad(logits, noise, _at_logits(logits, losses))
            noise = self.climb(noise.detach(), gradient, batch)
        return noise.detach()


def _at_logits(logits: Tensor, losses: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradient of the losses at the logits, scaled to 1 per example.

    Near its minimum a divergence's gradient is tiny, below what fp16 can carry back through the layers; only its direction
    counts for the noise of that example, so that the scale cancels.
    """
    leaf = at_least_fp32(logits.detach()).requires_grad_()
    (gradient,) = torch.autograd.grad(losses(leaf).sum(), leaf)
    scale = gradient.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
    return (gradient / scale).to(logits.dtype)


def check_not_negative(method: object) -> None:
    """Every number of a method is 0 or more.

    Raises:
        UserError: one is not.
    """
    for field in fields(method):  # type: ignore[arg-type]
        value = getattr(method, field.name)
        if isinstance(value, int | float) and not value >= 0:
            raise UserError(f"{field.name} is {value}: give 0 or more")
