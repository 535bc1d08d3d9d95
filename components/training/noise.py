"""Noise on the word embeddings: its random start, its size, its way up a divergence, and which examples get it."""

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from components.parameters import PerturbationDropout, PerturbationNorm, PerturbationScope
from components.training import randomness
from components.training.budget import Progress
from components.training.data import Batch
from components.training.divergences import at_least_fp32
from components.training.objectives import Objective


def _uniforms(batch: Batch, per_token: int, progress: Progress) -> tuple[Tensor, Tensor]:
    """Two times (batch, token, per_token) fp32, uniform on (0, 1]."""
    device = batch.input_ids.device
    rows = batch.rows.to(device, non_blocking=True)[:, None, None]
    positions = torch.arange(1, batch.input_ids.shape[1] * per_token + 1, device=device).view(-1, per_token)
    bits = randomness.key(progress.seed, randomness.NOISE, progress.update, rows, positions)
    return tuple((half + 1).float() * 2.0**-32 for half in (randomness.shift(bits, 32), bits & (2**32 - 1)))  # type: ignore[return-value]


def normal_noise(batch: Batch, hidden: int, std: float, progress: Progress) -> Tensor:
    """Normal noise of standard deviation `std`, zero on padding: (batch, token, hidden) fp32 (Box and Muller 1958)."""
    first, second = _uniforms(batch, -(-hidden // 2), progress)
    length, angle = (-2 * first.log()).sqrt() * std, 2 * math.pi * second
    return torch.cat((length * angle.cos(), length * angle.sin()), -1)[..., :hidden] * batch.attention_mask[..., None]


def uniform_noise(batch: Batch, hidden: int, progress: Progress) -> Tensor:
    """Noise uniform on (-1, 1), zero on padding: (batch, token, hidden) fp32."""
    noise = torch.cat(_uniforms(batch, -(-hidden // 2), progress), -1)[..., :hidden]
    return (2 * noise - 1) * batch.attention_mask[..., None]


def uniform_start(batch: Batch, embeddings: Tensor, size: float, norm: PerturbationNorm, progress: Progress) -> Tensor:
    """size * U(-1, 1), in L2 divided by the root of how many numbers a sequence has, so that its norm is about size / sqrt(3):
    (batch, token, hidden), zero on padding (Zhu et al., arXiv 1909.11764, algorithm 1).

    Args:
        embeddings: (..., hidden), what the noise is for: its type is theirs.
    """
    noise = uniform_noise(batch, embeddings.shape[-1], progress).to(embeddings.dtype) * size
    if norm == "linf":
        return noise
    numbers = batch.attention_mask.sum(1).to(embeddings.dtype) * embeddings.shape[-1]
    return noise / numbers.sqrt()[:, None, None]


def choose(batch: Batch, fraction: float, progress: Progress) -> Tensor:
    """Indices of the examples that get noise at this update, each with probability `fraction`: (chosen,) int64, on the CPU."""
    uniform = randomness.uniform(randomness.key(progress.seed, randomness.CHOICE, progress.update, batch.rows))
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


def direction_of(gradient: Tensor, norm: PerturbationNorm, scope: PerturbationScope) -> Tensor:
    """The gradient scaled to norm 1; nothing where it is 0 or overflowed.  gradient: (batch, token, hidden)."""
    size = noise_size(gradient, norm, scope)
    return torch.where((size > 0) & size.isfinite(), gradient / size, 0.0)


def noise_gradient(
    objective: Objective, model: nn.Module, embeddings: Tensor, noise: Tensor, batch: Batch, losses: Callable[[Tensor], Tensor]
) -> Tensor:
    """Gradient of `losses`, from outputs to (examples,), at the noise: (batch, token, hidden), right up to a positive factor.

    The gradient is taken by autograd.grad, not backward(): it is for the noise alone and must not reach param.grad or start an
    all-reduce. No weight gradient is computed, nor kept what it would take.
    """
    leaf = noise.detach().requires_grad_()
    with constant(model):
        outputs = objective.outputs(model, batch, embeddings.detach() + leaf)
    (gradient,) = torch.autograd.grad(outputs, leaf, _at_outputs(outputs, losses))
    return gradient


@contextlib.contextmanager
def constant(model: nn.Module) -> Iterator[None]:
    """A forward pass within the block takes the weights for constants. A compiled layer has a backward pass for each kind: it
    computes the gradients of all that asked for one in its forward pass, wanted or not.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _at_outputs(outputs: Tensor, losses: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradient of the losses at the outputs, scaled to 1 per example.

    Near its minimum a divergence's gradient is tiny, below what fp16 can carry back through the layers; only its direction
    counts for the noise of that example, so that the scale cancels.
    """
    leaf = at_least_fp32(outputs.detach()).requires_grad_()
    (gradient,) = torch.autograd.grad(losses(leaf).sum(), leaf)
    scale = gradient.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
    return (gradient / scale).to(outputs.dtype)
