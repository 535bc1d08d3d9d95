"""Does a trick do what it says? Scalars of every few updates, and the ranges in which they are healthy."""

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from components.training.budget import Progress

INTERVAL = 10
"""Updates from one look to the next."""
LOOKED_AT = 4096
"""Numbers of each tensor, at most, that an update is measured by."""


@dataclass(frozen=True)
class Healthy:
    """least, most: of the median of `window` looks, one after the other.  otherwise: what is wrong, and what mends it."""

    least: float
    most: float
    otherwise: str
    window: int = 5


HEALTHY: Mapping[str, Healthy] = {
    "win_rate": Healthy(
        0.1,
        0.5,
        "the share of Sophia's steps that is not clipped to the sign alone: a larger sophia_rho clips fewer",
        window=20,  # h is an average over a thousand updates, and small at first
    ),
    "hessian_share": Healthy(
        0.9, 1.0, "the share of moving weights with a Hessian: the others, in some group, take steps of the sign alone"
    ),
    "update_ratio_layers": Healthy(
        0.0, 0.03, "the size of an update against the layers' matrices: they are overwritten: lower learning_rate"
    ),
}
"""Scalar of metrics.jsonl -> its range. What is not here is for people to judge (docs/methods.md)."""


def is_due(progress: Progress) -> bool:
    return progress.update % INTERVAL == 0


class Watch:
    """Says once of each scalar that it is not healthy."""

    def __init__(self) -> None:
        self.seen: dict[str, deque[float]] = {}
        self.told: set[str] = set()

    def warnings(self, update: int, scalars: Mapping[str, float]) -> list[str]:
        """What there is to say after one more update's scalars, which may have none to look at."""
        found = []
        for name in HEALTHY.keys() & scalars.keys() - self.told:
            healthy = HEALTHY[name]
            seen = self.seen.setdefault(name, deque(maxlen=healthy.window))
            seen.append(scalars[name])
            median = statistics.median(seen)
            if len(seen) == healthy.window and not healthy.least <= median <= healthy.most:
                self.told.add(name)
                found.append(
                    f"update {update}: {name} is {median:.3g}, healthy are {healthy.least:g} to {healthy.most:g}: "
                    f"{healthy.otherwise}"
                )
        return found


def looked_at(weights: Iterable[Tensor]) -> list[Tensor]:
    """Copies of some numbers of each: all of a small tensor, else about as many as LOOKED_AT, spread over rows and columns."""
    return [weight.detach().flatten()[:: _stride(weight.numel())].clone() for weight in weights]


def _stride(numel: int) -> int:
    """One more than a multiple of 6: it goes through all columns of 768 or 1024."""
    least = -(-numel // LOOKED_AT)
    return least + (1 - least) % 6


class UpdateRatios:
    """The size of an update against that of the weights, by the optimizer's groups, from a sample of each tensor."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """Before its step."""
        self.groups = [(group.get("name", "all"), group["params"]) for group in optimizer.param_groups]
        self.before = [looked_at(weights) for _, weights in self.groups]

    def after(self) -> dict[str, Tensor]:
        """After the step: update_ratio_NAME of each group, ||w' - w|| / ||w||; 0 where the weights were 0."""
        found = {}
        for (name, weights), before in zip(self.groups, self.before, strict=True):
            moved = torch._foreach_sub(looked_at(weights), before)
            norms = [torch.stack(torch._foreach_norm(each)).norm() for each in (moved, before)]  # type: ignore[arg-type]
            found[f"update_ratio_{name}"] = torch.where(norms[1] > 0, norms[0] / norms[1], 0.0)
        return found
