"""Muon for the layers' matrices, AdamW for all else."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from components.training.optimizers.moments import Moments, adam_directions

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
MOMENTUM = 0.95


class Muon(Moments):
    """Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon), scaled as by Liu et al. (arXiv 2502.16982, equation 4).

        m <- 0.95 * m + 0.05 * g,     u = orthogonalized(0.95 * m + 0.05 * g)
        w <- (1 - lr * weight_decay) * w - lr * 0.2 * sqrt(max(rows, columns)) * u

    in groups with orthogonal=True, of matrices alone; in others AdamW. The scale gives u the size of AdamW's direction, so that
    one rate serves both. torch.optim.Muon does the first part, but always in bf16: here an fp32 matrix is orthogonalized in
    bf16 on a GPU and as it is on a CPU, and an fp64 one in fp64, so that ranks and micro-batches change nothing.
    """

    names = ("m", "v")

    def __init__(self, params: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "orthogonal": False})

    def new_state(self, weight: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        state = super().new_state(weight, group)
        return {"m": state["m"]} if group["orthogonal"] else state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group, weights in self.groups():
            gradients: list[Any] = [weight.grad for weight in weights]
            first = self.held(weights, "m")
            if group["orthogonal"]:
                torch._foreach_lerp_(first, gradients, 1 - MOMENTUM)
                ahead = torch._foreach_lerp(gradients, first, MOMENTUM)
                direction = [orthogonalized(each) * (0.2 * max(each.shape) ** 0.5) for each in ahead]
            else:
                group["step"] = group.get("step", 0) + 1
                second = self.held(weights, "v")
                direction = adam_directions(gradients, first, second, group["step"], group["betas"], group["eps"])
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, direction, alpha=-group["lr"])


def orthogonalized(matrix: Tensor, steps: int = 5) -> Tensor:
    """Nearly U V^T of its singular value decomposition U S V^T: singular values of about 0.7 to 1.2, by Newton and Schulz's
    iteration with the coefficients of Jordan et al.  matrix: (rows, columns).
    """
    a, b, c = COEFFICIENTS
    small = matrix.bfloat16() if matrix.is_cuda and matrix.dtype == torch.float32 else matrix
    tall = small.shape[0] > small.shape[1]
    small = small.T if tall else small
    small = small / small.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = small @ small.T
        small = a * small + (b * gram + c * gram @ gram) @ small
    return (small.T if tall else small).to(matrix.dtype)
