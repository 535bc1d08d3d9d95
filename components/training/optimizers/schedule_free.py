"""Schedule-free AdamW, all tensors of a group at once."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from components.training.optimizers.moments import Moments, directions, second_moment


class ScheduleFree(Moments):
    """Schedule-free AdamW (Defazio et al., arXiv 2405.15682, algorithm 1).

        y = (1 - beta1) * z + beta1 * x                 where the gradient g is taken: the network's weights while it trains
        z <- z - lr * (g / (sqrt(vhat) + eps) + weight_decay * y)
        x <- (1 - c) * x + c * z,   c = lr^2 / (the sum of lr^2 over all steps so far)

    The rate rises and then stays: x, an average, takes the place of its fall. x is what is evaluated and saved: `take_average`
    puts it into the network, when the training is over. No more memory than AdamW: x follows from y and z.
    """

    names = ("z", "v")

    def __init__(self, params: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def new_state(self, weight: torch.Tensor, group: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"z": weight.detach().clone(), "v": torch.zeros_like(weight, requires_grad=False)}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group, weights in self.groups():
            gradients: list[Any] = [weight.grad for weight in weights]
            iterates, rate, (beta1, beta2) = self.held(weights, "z"), group["lr"], group["betas"]
            group["step"] = group.get("step", 0) + 1
            group["squared_rates"] = group.get("squared_rates", 0.0) + rate**2
            share = rate**2 / group["squared_rates"] if rate else 0.0
            second = second_moment(gradients, self.held(weights, "v"), beta2)
            direction = directions(gradients, second, 1.0, 1 - beta2 ** group["step"], group["eps"])
            torch._foreach_add_(direction, weights, alpha=group["weight_decay"])
            # y after the step, from y and z before it: x drops out.
            torch._foreach_lerp_(weights, iterates, share)
            torch._foreach_add_(weights, direction, alpha=-rate * (1 - beta1 * (1 - share)))
            torch._foreach_add_(iterates, direction, alpha=-rate)

    @torch.no_grad()
    def take_average(self) -> None:
        """Let the network's weights be x. No step may follow."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight in self.state]
            if weights:
                torch._foreach_lerp_(weights, self.held(weights, "z"), 1 - 1 / group["betas"][0])
