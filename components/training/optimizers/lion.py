"""Lion, all tensors of a group at once."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from components.training.optimizers.moments import Moments


class Lion(Moments):
    """Lion (Chen et al., arXiv 2302.06675, algorithm 2).

        w <- (1 - lr * weight_decay) * w - lr * sign(beta1 * m + (1 - beta1) * g),     m <- beta2 * m + (1 - beta2) * g

    Every weight moves by the rate, or not at all: a weight whose gradient is 0 goes on moving until its momentum is 0. It wants
    a rate 3 to 10 times smaller than AdamW, and as many times its weight decay (section 5). Half of AdamW's memory.
    """

    names = ("m",)

    def __init__(self, params: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group, weights in self.groups():
            gradients, momentum = [weight.grad for weight in weights], self.held(weights, "m")
            beta1, beta2 = group["betas"]
            direction = torch._foreach_lerp(momentum, gradients, 1 - beta1)  # type: ignore[arg-type]
            torch._foreach_sign_(direction)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, direction, alpha=-group["lr"])
            torch._foreach_lerp_(momentum, gradients, 1 - beta2)  # type: ignore[arg-type]
