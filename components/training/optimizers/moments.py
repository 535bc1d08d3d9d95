"""What the optimizers of this folder have in common: their state, group by group, and Adam's direction."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

Group = dict[str, Any]


class Moments(torch.optim.Optimizer):
    """All tensors of a group at once.  names: of a weight's state, tensors of its shape that begin with zeros."""

    names: ClassVar[tuple[str, ...]]

    def __init__(self, params: Iterable[Any], defaults: Group) -> None:
        super().__init__(params, {"weight_decay": 0.0, **defaults})

    def new_state(self, weight: Tensor, group: Group) -> dict[str, Tensor]:
        """What the optimizer will hold of the weight."""
        return {name: torch.zeros_like(weight, requires_grad=False) for name in self.names}

    def groups(self) -> Iterator[tuple[Group, list[Tensor]]]:
        """Each group, and its weights that have a gradient, whose state is there."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                if weight not in self.state:
                    self.state[weight] = self.new_state(weight, group)
            if weights:
                yield group, weights

    def held(self, weights: list[Tensor], name: str) -> list[Tensor]:
        return [self.state[weight][name] for weight in weights]


def adam_directions(
    gradients: list[Tensor], first: list[Tensor], second: list[Tensor], step: int, betas: tuple[float, float], epsilon: float
) -> list[Tensor]:
    """Adam's step number `step`, from 1: moves the moments on, and gives mhat / (sqrt(vhat) + epsilon) (Kingma and Ba, arXiv
    1412.6980, algorithm 1).
    """
    beta1, beta2 = betas
    torch._foreach_lerp_(first, gradients, 1 - beta1)
    return directions(first, second_moment(gradients, second, beta2), 1 - beta1**step, 1 - beta2**step, epsilon)


def second_moment(gradients: list[Tensor], second: list[Tensor], beta2: float) -> list[Tensor]:
    """Moved on, in place."""
    torch._foreach_mul_(second, beta2)
    torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
    return second


def directions(
    first: list[Tensor], second: list[Tensor], correction1: float, correction2: float, epsilon: float
) -> list[Tensor]:
    """first / correction1 / (sqrt(second / correction2) + epsilon)"""
    scale = torch._foreach_div(second, correction2)
    torch._foreach_sqrt_(scale)
    torch._foreach_add_(scale, epsilon)
    direction = torch._foreach_div(first, scale)
    torch._foreach_div_(direction, correction1)
    return list(direction)
