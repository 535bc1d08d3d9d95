"""Which examples an update computes: a function of the seed and of where the run stands, whatever the number of ranks."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from components.training.budget import Progress
from components.training.randomness import ORDER, generator_seed

Score = Callable[[Tensor], Tensor]
"""Row numbers to the losses of these examples, (rows,) each: a pass that counts as work."""


class Selection(Protocol):
    """state, restore: what JSON can hold of what rows() remembers from earlier updates."""

    def rows(self, progress: Progress, score: Score) -> Tensor:
        """Row numbers of the examples of the update at `progress`: (examples,) int64."""

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Shuffled:
    """Each epoch goes through all rows in an order of its own; its last update has what is left."""

    num_rows: int
    global_batch_size: int

    def rows(self, progress: Progress, score: Score | None = None) -> Tensor:
        return rows_of_update(progress.update, self.num_rows, self.global_batch_size, progress.seed)

    def state(self) -> dict[str, Any]:
        return {}  # it remembers nothing

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


def updates_per_epoch(num_rows: int, global_batch_size: int) -> int:
    return -(-num_rows // global_batch_size)


def num_examples(num_updates: int, num_rows: int, global_batch_size: int) -> int:
    """Examples that the first `num_updates` updates compute."""
    epochs, left = divmod(num_updates, updates_per_epoch(num_rows, global_batch_size))
    return epochs * num_rows + left * global_batch_size  # what is left of an epoch leaves out its smaller, last update


def rows_of_update(update: int, num_rows: int, global_batch_size: int, seed: int) -> Tensor:
    """The examples of update `update`: a function of it and the seed alone."""
    epoch, position = divmod(update, updates_per_epoch(num_rows, global_batch_size))
    start = position * global_batch_size
    return _epoch_order(epoch, num_rows, seed)[start : start + global_batch_size]


@functools.lru_cache(maxsize=2)
def _epoch_order(epoch: int, num_rows: int, seed: int) -> Tensor:
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(generator_seed(seed, ORDER, epoch)))
