"""The seam of depth: which layers an update computes. A function of the seed, the update and the share of the budget that is
spent, so that all ranks, micro-batches and passes of an update compute the same layers. Imports no torch at first.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from components.training.budget import Progress


class Depth(Protocol):
    def active(self, progress: Progress, num_layers: int) -> Mapping[int, float] | None:
        """The layers that the update at `progress` computes, from 0 -> the factor on each one's residual branches.

        None: all of them, as they are.
        """


@dataclass(frozen=True)
class All:
    def active(self, progress: Progress, num_layers: int) -> None:
        return None


@dataclass(frozen=True)
class Dropping:
    """Progressive layer dropping (Zhang and He, arXiv 2010.13369): ever more layers stay out, the last ones most often.

        theta(s) = (1 - theta_bar) * exp(-gamma * s) + theta_bar,     p_l = 1 - l/L * (1 - theta(s))

    with s the share of the budget that is spent, and p_l the probability that layer l = 1 .. L computes. On average
    (1 + theta_bar) / 2 of the layers do, less (1 - theta_bar) / 2L, once theta has come down.

    keep: theta_bar, above 0 to 1.  rate: gamma, 0 or more.  scaled: branches by 1/p_l, the very probability of the draw, as
    PreLN models want it; not in layerdrop, where LayerNorm comes after the sum.
    """

    keep: float
    rate: float
    scaled: bool

    def theta(self, share: float) -> float:
        return (1 - self.keep) * math.exp(-self.rate * share) + self.keep

    def probabilities(self, share: float, num_layers: int) -> list[float]:
        """That each layer computes."""
        lost = 1 - self.theta(share)
        return [1 - layer / num_layers * lost for layer in range(1, num_layers + 1)]

    def active(self, progress: Progress, num_layers: int) -> Mapping[int, float]:
        import torch

        from components.training.randomness import DEPTH, key, uniform

        drawn = uniform(key(progress.seed, DEPTH, progress.update, torch.arange(num_layers))).tolist()
        probabilities = self.probabilities(progress.share, num_layers)
        kept = {layer: keep for layer, keep in enumerate(probabilities) if drawn[layer] < keep}
        return {layer: 1 / keep if self.scaled else 1.0 for layer, keep in kept.items()}


def build_depth(depth: str, keep: float, rate: float) -> Depth:
    """depth: `all`, `pld` or `layerdrop`.  keep, rate: theta_bar and gamma of the latter two."""
    return All() if depth == "all" else Dropping(keep, rate, scaled=depth == "pld")
