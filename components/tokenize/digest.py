"""Names for a split and for its rows, whatever file they came in and whatever tokenizer follows."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.tasks.table import Task

BLOCK_ROWS = 1000
"""Rows that are digested together. Whoever has whole blocks can digest them without the rows before."""


class RowsDigest:
    """sha256 over the texts and labels of rows that come a table at a time; how they are cut into tables changes nothing.

    Two models were measured on the same examples where their splits have the same digest.
    """

    def __init__(self, task: Task) -> None:
        self.columns = task.text_columns
        self.finished: list[str] = []
        self._open()

    def update(self, rows: pa.Table) -> None:
        while len(rows):
            room = BLOCK_ROWS - self.num_rows
            self._add(rows.slice(0, room))
            rows = rows.slice(room)

    def blocks(self) -> list[str]:
        """The digest of each block of rows, in their order; the last block may be a short one."""
        return [*self.finished, self._block()] if self.num_rows else self.finished

    def _open(self) -> None:
        self.num_rows = 0
        self.hashes = [hashlib.sha256() for _ in range(2 * len(self.columns) + 1)]

    def _block(self) -> str:
        return joined(part.hexdigest() for part in self.hashes)

    def _add(self, rows: pa.Table) -> None:
        for texts, lengths, name in zip(self.hashes[::2], self.hashes[1::2], self.columns, strict=False):
            column = rows[name].cast(pa.large_binary()).combine_chunks()
            lengths.update(pc.binary_length(column).cast(pa.int64()).to_numpy())
            for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
                _, offsets, values = chunk.buffers()
                ends = pa.Array.from_buffers(pa.int64(), len(chunk) + 1, [None, offsets], offset=chunk.offset)
                if len(chunk) and values is not None:
                    texts.update(memoryview(values)[ends[0].as_py() : ends[len(chunk)].as_py()])
        self.hashes[-1].update(rows["label"].cast(pa.float64()).to_numpy())
        self.num_rows += len(rows)
        if self.num_rows == BLOCK_ROWS:
            self.finished.append(self._block())
            self._open()


def joined(digests: Iterable[str]) -> str:
    """One digest of many: of a split, from those of its blocks."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def text_digests(rows: pa.Table, columns: Sequence[str], purpose: str = "") -> np.ndarray:
    """(rows,) int64: a name for the texts of each row, wherever it stands and whatever label it has.

    BLAKE2b (RFC 7693), 8 bytes, over each text and its length: where one text ends and the next begins counts. Signed, since
    many readers of Parquet know no other numbers.

    Args:
        columns: Those that hold the texts, in the order of the task.
        purpose: Digests for one purpose (16 bytes or fewer) say nothing of those for another.
    """
    person = purpose.encode()
    texts = [rows[name].cast(pa.large_binary()).to_pylist() for name in columns]
    digests = (
        hashlib.blake2b(b"".join(b"%d:%b" % (len(text), text) for text in row), digest_size=8, person=person).digest()
        for row in zip(*texts, strict=True)
    )
    return np.frombuffer(b"".join(digests), "<i8")
