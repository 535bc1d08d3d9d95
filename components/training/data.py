"""Tokenized Parquet as tensors, and which rank computes which of an update's rows, in which micro-batch."""

import functools
import heapq
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from components.artifacts.splits import find_split
from components.errors import UserError
from components.modeling.packing import ROWS, Packing, filled, move

TOKEN_COLUMNS = ("input_ids", "token_type_ids")
ROWS_AT_ONCE = 20_000
IN_MEMORY = 2**30


@dataclass(frozen=True)
class Batch:
    """Examples side by side, padded on the right to the longest.

    input_ids, attention_mask and token_type_ids (None where the model has none): (batch, token) int64.
    labels: (batch,) int64 classes or float32 scores.  rows: (batch,) int64, the examples' row numbers in the split, on the CPU.
    lengths: (batch,) int64 tokens of each example, on the CPU, for a model that `pack` has prepared; None for any other.
    places: (batch, read) int64, the positions that are read, where it is not the first one; labels are (batch, read) then.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None
    labels: Tensor
    rows: Tensor
    lengths: Tensor | None = None
    places: Tensor | None = None

    @functools.cached_property
    def context(self) -> dict[str, Any]:
        """The model's inputs besides the tokens themselves."""
        context: dict[str, Any] = {"attention_mask": self.attention_mask}
        if self.token_type_ids is not None:
            context["token_type_ids"] = self.token_type_ids
        if self.lengths is not None:
            num_tokens, device = int(self.lengths.sum()), self.input_ids.device
            filling = filled(num_tokens, ROWS, device) - num_tokens
            packing = Packing.of(self.lengths, self.input_ids.shape[1], device, filling)
            context["packing"] = packing if self.places is None else packing.reading(self.places)
        return context

    def take(self, index: Tensor) -> "Batch":
        """The examples at `index`, (taken,) int64 on the CPU, padded as they are."""
        here = index.to(self.input_ids.device, non_blocking=True)
        types = None if self.token_type_ids is None else self.token_type_ids[here]
        lengths = None if self.lengths is None else self.lengths[index]
        places = None if self.places is None else self.places[here]
        return Batch(
            self.input_ids[here], self.attention_mask[here], types, self.labels[here], self.rows[index], lengths, places
        )


class Examples(Protocol):
    """What a run learns from.  lengths: (examples,) int64, tokens of each."""

    @property
    def lengths(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor, pad_id: int, device: torch.device, packed: bool = False, update: int = 0) -> Batch:
        """The examples at `rows`, (batch,) int64, as update number `update` sees them, on `device`."""


@dataclass(frozen=True)
class Split:
    """One split: for each token column all rows end to end, and where each row begins.

    tokens: name -> (num_tokens,) int32.  offsets: (num_rows + 1,) int64.  labels: (num_rows,).
    """

    tokens: dict[str, Tensor]
    offsets: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def lengths(self) -> Tensor:
        """Tokens of each row: (num_rows,) int64."""
        return self.offsets.diff()

    def drawn(self, count: int) -> "Split":
        """At most `count` of its rows, drawn from all, in their order; the same ones every time."""
        if count >= len(self):
            return self
        rows = np.sort(np.random.default_rng(0).choice(len(self), count, replace=False))
        starts, ends = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        tokens = {
            name: torch.cat([values[start:end] for start, end in zip(starts, ends, strict=True)])
            for name, values in self.tokens.items()
        }
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), self.lengths[rows].cumsum(0)])
        return Split(tokens, offsets, self.labels[rows])

    def head(self, count: int) -> "Split":
        """Its first `count` rows."""
        tokens = {name: values[: int(self.offsets[count])] for name, values in self.tokens.items()}
        return Split(tokens, self.offsets[: count + 1], self.labels[:count])

    def batch(self, rows: Tensor, pad_id: int, device: torch.device, packed: bool = False, update: int = 0) -> Batch:
        """The examples at `rows`, on `device`, the same at every update; `packed` for a model that `pack` has prepared."""
        lengths = self.lengths[rows]
        columns = torch.arange(int(lengths.max()))
        mask = columns < lengths[:, None]
        positions = (self.offsets[rows][:, None] + columns).clamp_(max=len(self.tokens["input_ids"]) - 1)
        padding = {"input_ids": pad_id, "token_type_ids": 0}
        tokens = {
            name: move(values[positions].long().masked_fill_(~mask, padding[name]), device)
            for name, values in self.tokens.items()
        }
        return Batch(
            tokens["input_ids"],
            move(mask.long(), device),
            tokens.get("token_type_ids"),
            move(self.labels[rows], device),
            rows,
            lengths if packed else None,
        )


def read_split(folder: Path, split: str) -> Split:
    """A split that components.tokenize wrote to `folder`, some thousand rows at a time, through Arrow's buffers.

    Tokens of more than IN_MEMORY bytes go to a memory-mapped file in the folder for temporary files, which has no name and ends
    with the process: a set may be larger than the memory.

    Raises:
        UserError: there is no such split.
    """
    files = [pq.ParquetFile(path) for path in find_split(folder, split)]
    if not files:
        raise UserError(f"{folder} has no {split} split: tokenize one")
    names = [name for name in TOKEN_COLUMNS if name in files[0].schema_arrow.names]
    num_tokens = sum(_num_values(file, "input_ids") for file in files)
    tokens = {name: _space(num_tokens) for name in names}
    lengths, labels, start = [torch.zeros(1, dtype=torch.int64)], [], 0
    for batch in itertools.chain.from_iterable(file.iter_batches(ROWS_AT_ONCE, columns=[*names, "label"]) for file in files):
        for name in names:
            values = batch[name].flatten().to_numpy()
            tokens[name][start : start + len(values)] = torch.from_numpy(values.copy())
        start += len(values)
        lengths.append(torch.from_numpy(np.diff(batch["input_ids"].offsets.to_numpy()).astype(np.int64)))
        labels.append(torch.from_numpy(batch["label"].to_numpy().copy()))
    return Split({name: values[:start] for name, values in tokens.items()}, torch.cat(lengths).cumsum(0), torch.cat(labels))


def _num_values(file: pq.ParquetFile, column: str) -> int:
    """Of a column of lists, over all rows."""
    metadata = file.metadata
    at = next(index for index in range(metadata.num_columns) if metadata.schema.column(index).path.startswith(f"{column}."))
    return sum(metadata.row_group(group).column(at).num_values for group in range(metadata.num_row_groups))


def _space(num_tokens: int) -> Tensor:
    """(num_tokens,) int32"""
    if 4 * num_tokens <= IN_MEMORY:
        return torch.empty(num_tokens, dtype=torch.int32)
    with tempfile.NamedTemporaryFile(prefix="tokens-") as file:  # the mapping outlives the name
        return torch.from_file(file.name, shared=True, size=num_tokens, dtype=torch.int32)


def micro_batches(rows: Tensor, lengths: Tensor, micro_batch_tokens: int, rank: int, num_ranks: int) -> list[Tensor]:
    """This rank's part of an update's rows, longest first, cut into pieces of about equal tokens.

    The longest examples are given out first, each to the rank that has the fewest tokens, so that no rank waits for another.

    Args:
        lengths: tokens of each of `rows`.
        micro_batch_tokens: about the most tokens of a piece; an example alone may have more.

    Returns:
        Row numbers of each micro-batch; no micro-batch at all where there are fewer rows than ranks.
    """
    order = lengths.argsort(descending=True, stable=True)
    if num_ranks > 1:
        loads, mine = [(0, each) for each in range(num_ranks)], []
        for position, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
            load, each = loads[0]
            heapq.heapreplace(loads, (load + length, each))
            if each == rank:
                mine.append(position)
        order = torch.tensor(mine, dtype=torch.int64)
    if not len(order):
        return []
    ends = lengths[order].cumsum(0)
    total = int(ends[-1])
    num_pieces = -(-total // micro_batch_tokens)
    sizes = ((ends - 1) * num_pieces // total).bincount()
    return list(rows[order].split(sizes[sizes > 0].tolist()))
