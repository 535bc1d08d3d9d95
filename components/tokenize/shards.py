"""The tokenized rows of a split as Parquet files: SPLIT.parquet, or SPLIT-00000-of-00003.parquet and so on where it is large.

Which row goes to which file and row group depends on its number alone, so that readers can share them out and several writers
could make them.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 50_000


class ShardWriter:
    """Takes tables of any size; a thread compresses a row group while the next one is made."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema, shard_rows: int) -> None:
        self.folder, self.split, self.schema, self.shard_rows = folder, split, schema, shard_rows
        self.num_rows, self.num_pending = 0, 0
        self.pending: list[pa.Table] = []
        self.writer: pq.ParquetWriter | None = None
        self.paths: list[Path] = []
        self.pool = ThreadPoolExecutor(1)
        self.writing: Future[None] = self.pool.submit(lambda: None)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self.pool:
            if kind is None:
                self._write_group(self.num_pending)
                self.writing.result()
        if self.writer:
            self.writer.close()
        if kind is None:
            for number, path in enumerate(self.paths):
                many = f"-{number:05}-of-{len(self.paths):05}" if len(self.paths) > 1 else ""
                path.rename(self.folder / f"{self.split}{many}.parquet")

    def write(self, table: pa.Table) -> None:
        self.pending.append(table)
        self.num_pending += len(table)
        while self.num_pending >= self._room():
            self._write_group(self._room())

    def _room(self) -> int:
        """Rows of the row group that is to be written next."""
        return min(ROW_GROUP, self.shard_rows - self.num_rows % self.shard_rows)

    def _write_group(self, count: int) -> None:
        pending = pa.concat_tables(self.pending) if self.pending else self.schema.empty_table()
        group, rest = pending.slice(0, count).combine_chunks(), pending.slice(count)
        self.pending, self.num_pending = [rest], len(rest)
        self.writing.result()
        if (count or not self.paths) and self.num_rows % self.shard_rows == 0:
            if self.writer:
                self.writer.close()
            self.paths.append(self.folder / f".{self.split}-{len(self.paths):05}.parquet")
            self.writer = pq.ParquetWriter(self.paths[-1], self.schema, compression="zstd", use_dictionary=["label"])
        if count:
            assert self.writer is not None
            self.num_rows += count
            self.writing = self.pool.submit(self.writer.write_table, group)
