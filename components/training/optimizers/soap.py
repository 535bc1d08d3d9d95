"""SOAP for the matrices of layers and head, AdamW for all else."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from components.training.optimizers.moments import Moments, adam_directions, directions, second_moment

LARGEST = 10_000
"""A side longer than that, as a vocabulary is, keeps its own basis (section 4)."""


class Soap(Moments):
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioners (Vyas et al., arXiv 2409.11321, algorithms 3 and 4).

        m <- beta1 * m + (1 - beta1) * g,     v <- beta2 * v + (1 - beta2) * (Ql^T g Qr)^2
        w <- (1 - lr * weight_decay) * w - lr * Ql (Ql^T mhat Qr / (sqrt(vhat) + eps)) Qr^T
        L <- beta2 * L + (1 - beta2) * g g^T,     R <- beta2 * R + (1 - beta2) * g^T g
        every `interval` steps:     Ql <- QR(L Ql),     Qr <- QR(R Qr)

    with their columns, and what v has of them, in the order of the eigenvalues, the largest first, as in the authors' code. In
    groups with rotated=True, of matrices alone; in others AdamW. At first Ql and Qr are the eigenvectors of L and R of the
    first gradient, which moves no matrix, as there: in its own eigenbasis all but the diagonal is rounding, of which Adam would
    make steps. Memory: two squares more for each side of a matrix.

    Where the first gradient has less than full rank, the eigenvectors of nothing are rounding's: so ranks and micro-batches do
    change the weights a little.
    """

    names = ("m", "v")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        interval: int = 10,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "interval": interval, "rotated": False})

    def new_state(self, weight: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        state = super().new_state(weight, group)
        if group["rotated"]:
            for side, size in zip(("left", "right"), weight.shape, strict=True):
                if size <= LARGEST:
                    state |= {name + side: weight.new_zeros(size, size) for name in ("", "basis_")}
        return state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group, weights in self.groups():
            gradients: list[Any] = [weight.grad for weight in weights]
            states = [self.state[weight] for weight in weights]
            if group["rotated"] and "step" not in group:
                group["step"] = 0
                for gradient, state in zip(gradients, states, strict=True):
                    _begin(gradient, state, group["betas"][1])
                continue
            group["step"] = group.get("step", 0) + 1
            direction = (self._rotated if group["rotated"] else self._adam)(group, weights, gradients)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, direction, alpha=-group["lr"])
            if group["rotated"]:
                for gradient, state in zip(gradients, states, strict=True):
                    _learn(gradient, state, group["betas"][1], turn=group["step"] % group["interval"] == 0)

    def _adam(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        first, second = self.held(weights, "m"), self.held(weights, "v")
        return adam_directions(gradients, first, second, group["step"], group["betas"], group["eps"])

    def _rotated(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        first, second, (beta1, beta2) = self.held(weights, "m"), self.held(weights, "v"), group["betas"]
        states, step = [self.state[weight] for weight in weights], group["step"]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        second_moment(list(map(_into, gradients, states)), second, beta2)
        inside = directions(list(map(_into, first, states)), second, 1 - beta1**step, 1 - beta2**step, group["eps"])
        return list(map(_out_of, inside, states))


def _begin(gradient: Tensor, state: dict[str, Tensor], beta2: float) -> None:
    """Preconditioners of the first gradient, and their eigenvectors."""
    for side, square in _squares(gradient, state):
        state[side].copy_(square).mul_(1 - beta2)
        state[f"basis_{side}"].copy_(torch.linalg.eigh(square).eigenvectors.flip(1))


def _learn(gradient: Tensor, state: dict[str, Tensor], beta2: float, turn: bool) -> None:
    """turn: the bases come nearer to the eigenvectors. The largest goes first: its part is taken out of all that follow."""
    for side, square in _squares(gradient, state):
        preconditioner, basis = state[side].lerp_(square, 1 - beta2), state[f"basis_{side}"]
        if turn:
            order = (basis * (preconditioner @ basis)).sum(0).argsort(descending=True)
            state["v"].copy_(state["v"].index_select(0 if side == "left" else 1, order))
            basis.copy_(torch.linalg.qr(preconditioner @ basis[:, order]).Q)


def _squares(gradient: Tensor, state: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    squares = (("left", lambda: gradient @ gradient.T), ("right", lambda: gradient.T @ gradient))
    return [(side, square()) for side, square in squares if side in state]


def _into(matrix: Tensor, state: dict[str, Tensor]) -> Tensor:
    matrix = state["basis_left"].T @ matrix if "left" in state else matrix
    return matrix @ state["basis_right"] if "right" in state else matrix


def _out_of(matrix: Tensor, state: dict[str, Tensor]) -> Tensor:
    matrix = state["basis_left"] @ matrix if "left" in state else matrix
    return matrix @ state["basis_right"].T if "right" in state else matrix
