"""What is counted while a split is tokenized: of each of its files apart, so that counts can come from several writers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.tasks.table import Task
from components.tokenize.digest import joined
from components.tokenize.shards import shard_name

QUANTILES = {"median_length": 0.5, "p95_length": 0.95, "p99_length": 0.99}


@dataclass(frozen=True)
class Counts:
    """Of one file."""

    histogram: list[int]
    """Rows of each length, from 0 to max_length."""
    truncated: int
    labels: list[int]
    """Rows without a label, then of each label."""
    digests: list[str]
    """Of each block of rows, with their texts."""


Shards = Mapping[str, Mapping[int, Counts]]
"""Split -> shard -> what was counted in it."""


def name_and_add(folder: Path, task: Task, shards: Shards) -> dict[str, dict[str, Any]]:
    """Give the splits' files in `folder` their final names. Returns the splits' statistics."""
    for split, counts in shards.items():
        for shard in counts:
            (folder / shard_name(split, shard)).rename(folder / shard_name(split, shard, len(counts)))
    return {split: _of_split(task, [counts[shard] for shard in sorted(counts)]) for split, counts in shards.items()}


def show(splits: Mapping[str, Any]) -> None:
    """A line for each split."""
    for split, numbers in splits.items():
        print(
            f"{split}: {numbers['rows']} rows, {numbers['tokens']} tokens, "
            f"{numbers['mean_length']:.1f} a row, longest {numbers['max_length']}, {numbers['truncated']} cut",
            flush=True,
        )


def _of_split(task: Task, counts: Sequence[Counts]) -> dict[str, Any]:
    """Rows, tokens, lengths, label counts, rows cut and digest."""
    labels = np.sum([shard.labels for shard in counts], axis=0).tolist()
    named = zip(("unlabelled", *task.label_names), labels, strict=True)
    return {
        **_of_lengths(np.sum([shard.histogram for shard in counts], axis=0)),
        "truncated": sum(shard.truncated for shard in counts),
        "labels": {name: count for name, count in named if count},
        "digest": joined(digest for shard in counts for digest in shard.digests),
    }


def _of_lengths(histogram: np.ndarray) -> dict[str, Any]:
    """histogram: (longest + 1,) rows of each length."""
    below = histogram.cumsum()
    rows = int(below[-1])
    tokens = int(histogram @ np.arange(len(histogram)))
    quantiles = {name: int(np.searchsorted(below, share * rows)) for name, share in QUANTILES.items()}
    longest = int(np.flatnonzero(histogram)[-1])
    return {
        "rows": rows,
        "tokens": tokens,
        "mean_length": tokens / rows,
        **quantiles,
        "max_length": longest,
        "histogram": histogram[: longest + 1].tolist(),
    }
