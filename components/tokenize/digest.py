"""A name for the rows of a split, whatever file they came in and whatever tokenizer follows."""

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from components.tasks import Task


class RowsDigest:
    """sha256 over the texts and labels of rows that come a table at a time; how they are cut into tables changes nothing.

    Two models were measured on the same examples where their splits have the same digest.
    """

    def __init__(self, task: Task) -> None:
        self.columns = task.text_columns
        self.hashes = [hashlib.sha256() for _ in range(2 * len(self.columns) + 1)]

    def update(self, rows: pa.Table) -> None:
        for texts, lengths, name in zip(self.hashes[::2], self.hashes[1::2], self.columns, strict=False):
            column = rows[name].cast(pa.large_binary()).combine_chunks()
            lengths.update(pc.binary_length(column).cast(pa.int64()).to_numpy())
            for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
                _, offsets, values = chunk.buffers()
                ends = pa.Array.from_buffers(pa.int64(), len(chunk) + 1, [None, offsets], offset=chunk.offset)
                if len(chunk) and values is not None:
                    texts.update(memoryview(values)[ends[0].as_py() : ends[len(chunk)].as_py()])
        self.hashes[-1].update(rows["label"].cast(pa.float64()).to_numpy())

    def hexdigest(self) -> str:
        return hashlib.sha256("".join(part.hexdigest() for part in self.hashes).encode()).hexdigest()
