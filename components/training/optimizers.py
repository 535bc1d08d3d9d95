"""Optimizers and the learning rate's way from zero to its peak and back to exactly zero."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from components.errors import UserError
from components.parameters import Optimizer, Scaling

BASE_BATCH_SIZE = 32
BASE_LEARNING_RATES: dict[Optimizer, float] = {"adamw": 5e-5, "lamb": 2e-4}


def peak_learning_rate(
    optimizer: Optimizer, learning_rate: float, global_batch_size: int, base_batch_size: int = 0, scaling: Scaling = "sqrt"
) -> float:
    """The learning rate of batches of base_batch_size, scaled to batches of global_batch_size.

    With k = global_batch_size / base_batch_size: `linear` times k (Goyal et al., arXiv 1706.02677), `sqrt` times its
    square root (Krizhevsky, arXiv 1404.5997). A learning rate of 0 is the optimizer's own, for batches of 32; a
    base_batch_size of 0 is global_batch_size where there is a learning rate, else 32.
    """
    base = base_batch_size or (global_batch_size if learning_rate else BASE_BATCH_SIZE)
    factor = {"none": 1.0, "linear": global_batch_size / base, "sqrt": (global_batch_size / base) ** 0.5}[scaling]
    return (learning_rate or BASE_LEARNING_RATES[optimizer]) * factor


def schedule(update: int, num_updates: int, num_warmup: int) -> float:
    """Factor on the peak learning rate: up in a line over the first `num_warmup` updates, then down in a line.

    The last update (num_updates - 1) still moves; at `num_updates` the factor is 0.0 exactly, and beyond it never negative.
    """
    if update < num_warmup:
        return (update + 1) / (num_warmup + 1)
    return max(0.0, (num_updates - update) / max(1, num_updates - num_warmup))


def build_optimizer(name: Optimizer, model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW (fused) or LAMB over the model's parameters, without decay for biases and LayerNorm.

    Raises:
        UserError: a negative learning rate or weight decay.
    """
    if learning_rate < 0 or weight_decay < 0:
        raise UserError(f"learning_rate is {learning_rate} and weight_decay {weight_decay}: give 0 or more")
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if name == "lamb":
        groups[1]["adapt"] = False
        return Lamb(groups, learning_rate)
    return torch.optim.AdamW(groups, learning_rate, fused=True)


def trust_ratios(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The spread of LAMB's trust ratios over the tensors of the last step, as scalars on their device; none for others."""
    if not isinstance(optimizer, Lamb) or optimizer.trust_ratios is None:
        return {}
    ratios = optimizer.trust_ratios
    return {"trust_ratio_min": ratios.min(), "trust_ratio_median": ratios.median(), "trust_ratio_max": ratios.max()}


class Lamb(torch.optim.Optimizer):
    """LAMB (You et al., arXiv 1904.00962, algorithm 2), all tensors of a group at once.

        u = mhat / (sqrt(vhat) + eps) + weight_decay * w,     w <- w - lr * (||w|| / ||u||) * u

    with the trust ratio ||w|| / ||u|| of each tensor; 1 where either norm is 0, and in groups with adapt=False. Moments are
    bias-corrected; the ratio is not clipped (the paper's phi is the identity).
    """

    trust_ratios: Tensor | None = None
    """Of the last step: (tensors of the groups with adapt=True,)."""

    def __init__(self, params: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients: list[Tensor] = [weight.grad for weight in weights]
            for weight in weights:
                if weight not in self.state:
                    self.state[weight] = {"m": torch.zeros_like(weight), "v": torch.zeros_like(weight)}
            first = [self.state[weight]["m"] for weight in weights]
            second = [self.state[weight]["v"] for weight in weights]
            beta1, beta2 = group["betas"]
            group["step"] = group.get("step", 0) + 1
            torch._foreach_lerp_(first, gradients, 1 - beta1)
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)

            scale = torch._foreach_div(second, 1 - beta2 ** group["step"])
            torch._foreach_sqrt_(scale)
            torch._foreach_add_(scale, group["eps"])
            direction = torch._foreach_div(first, scale)
            torch._foreach_div_(direction, 1 - beta1 ** group["step"])
            torch._foreach_add_(direction, weights, alpha=group["weight_decay"])
            if group["adapt"]:
                norms = torch.stack(torch._foreach_norm([*weights, *direction]))
                weight_norms, direction_norms = norms.chunk(2)
                known = (weight_norms > 0) & (direction_norms > 0)
                self.trust_ratios = torch.where(known, weight_norms / direction_norms, 1.0)
                torch._foreach_mul_(direction, list(self.trust_ratios.unbind()))
            torch._foreach_add_(weights, direction, alpha=-group["lr"])
