"""Sophia-G, all tensors of a group at once."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from components.training.optimizers.moments import Moments

EPSILON = 1e-12
"""Algorithm 3's, in the denominator: where the Hessian is 0 or was never estimated, the step is the rate, by the momentum's
sign.
"""


class Sophia(Moments):
    """Sophia with the Gauss-Newton-Bartlett estimator (Liu et al., arXiv 2305.14342, algorithms 2 and 3).

        every `hessian_interval` updates, the first among them:     h <- beta2 * h + (1 - beta2) * B * ghat^2
        m <- beta1 * m + (1 - beta1) * g
        w <- (1 - lr * weight_decay) * w - lr * clip(m / max(rho * h, 1e-12), -1, 1)

    with ghat the mean gradient of B loss terms whose labels are drawn from the model's own predictions (see
    training/hessian.py). rho sets which share of the steps is not clipped: 0.1 to 0.5 of them is what its authors look for.
    Their 0.01 to 0.08 is for pre-training, where B is 10^5 and more; in fine-tuning with B = 32 it clips every step.
    """

    names = ("m", "h")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.965, 0.99),
        rho: float = 100.0,
        hessian_interval: int = 10,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "rho": rho, "hessian_interval": hessian_interval})

    @property
    def hessian_interval(self) -> int:
        """Updates from one estimate to the next."""
        return int(self.param_groups[0]["hessian_interval"])

    @property
    def estimated(self) -> int:
        """The update whose estimate h has, the last one; -1 before the first."""
        return int(self.param_groups[0].get("estimated", -1))

    @torch.no_grad()
    def add_hessian(self, num_terms: int, update: int) -> None:
        """Take param.grad for the mean gradient ghat of so many loss terms with sampled labels, at this update."""
        for group, weights in self.groups():
            group["estimated"] = update
            gradients: list[Any] = [weight.grad for weight in weights]
            hessian = self.held(weights, "h")
            beta2 = group["betas"][1]
            torch._foreach_mul_(hessian, beta2)
            torch._foreach_addcmul_(hessian, gradients, gradients, (1 - beta2) * num_terms)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group, weights in self.groups():
            gradients, momentum = [weight.grad for weight in weights], self.held(weights, "m")
            torch._foreach_lerp_(momentum, gradients, 1 - group["betas"][0])  # type: ignore[arg-type]
            direction = torch._foreach_div(momentum, self._scales(group, weights))
            torch._foreach_clamp_min_(direction, -1.0)
            torch._foreach_clamp_max_(direction, 1.0)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, direction, alpha=-group["lr"])

    def _scales(self, group: dict[str, Any], weights: list[Tensor]) -> list[Tensor]:
        """Momentum of at least so much is clipped."""
        scales = torch._foreach_mul(self.held(weights, "h"), group["rho"])
        torch._foreach_clamp_min_(scales, EPSILON)
        return list(scales)

    @torch.no_grad()
    def scalars(self) -> dict[str, Tensor]:
        """Of the weights outside the embedding tables that have momentum, after a step.

        win_rate: the share whose step was not clipped.  hessian_share: the share whose h is above 0, in the group where it is
        least. (Most rows of a table belong to words that an estimate has not seen.)
        """
        moving, unclipped, shares = [], [], []
        for group, weights in self.groups():
            if group.get("name") == "embeddings":
                continue
            moves = [momentum != 0 for momentum in self.held(weights, "m")]
            scales = zip(self.held(weights, "m"), self._scales(group, weights), strict=True)
            number = torch.stack([each.sum() for each in moves]).sum()
            known = [(h > 0) & move for h, move in zip(self.held(weights, "h"), moves, strict=True)]
            wins = [(momentum.abs() < scale) & move for (momentum, scale), move in zip(scales, moves, strict=True)]
            moving.append(number)
            unclipped.append(torch.stack([each.sum() for each in wins]).sum())
            shares.append(torch.stack([each.sum() for each in known]).sum() / number.clamp(min=1))
        if not moving:
            return {}
        total = torch.stack(moving).sum().clamp(min=1)
        return {"win_rate": torch.stack(unclipped).sum() / total, "hessian_share": torch.stack(shares).min()}
