"""LAMB, all tensors of a group at once."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


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
