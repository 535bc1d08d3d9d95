"""The tokenized rows of a split as Parquet files: SPLIT.parquet, or SPLIT-00000-of-00003.parquet and so on where it is large.

Which row goes to which file and row group depends on its number alone, so that readers can share them out and several writers
can make them.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from components.tokenize.rows import Stretch

ROW_GROUP = 50_000


def shard_name(split: str, shard: int, num_shards: int | None = None) -> str:
    """A file's name; `num_shards` is not known before all of the split was read."""
    if num_shards == 1:
        return f"{split}.parquet"
    return f"{split}-{shard:05}.parquet" if num_shards is None else f"{split}-{shard:05}-of-{num_shards:05}.parquet"


def share(stretches: Iterator[Stretch], shard_rows: int, part: int, num_parts: int) -> Iterator[tuple[int, pa.Table]]:
    """(shard, rows of it) for the shards part, part + num_parts and so on. A stretch without rows of theirs is not read."""

    def ours(start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(shard, first row, row after the last) of what is ours of these rows."""
        for shard in range(start // shard_rows, -(-stop // shard_rows)):
            if shard % num_parts == part and start < stop:
                yield shard, max(start, shard * shard_rows), min(stop, (shard + 1) * shard_rows)

    start = 0
    for stretch in stretches:
        end = start + stretch.num_rows
        if any(ours(start, end)):
            row = start
            for table in stretch.tables():
                for shard, first, last in ours(row, row + len(table)):
                    yield shard, table.slice(first - row, last - first)
                row += len(table)
                if not any(ours(row, end)):
                    break
        start = end


class ShardWriter:
    """Writes one file. Takes tables of any size; a thread compresses a row group while the next one is made."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.pending, self.num_pending = [schema.empty_table()], 0
        self.writer = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["label"])
        self.pool = ThreadPoolExecutor(1)
        self.writing: Future[None] = self.pool.submit(lambda: None)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self.pool:
            if kind is None and self.num_pending:
                self._write_group(self.num_pending)
            if kind is None:
                self.writing.result()
        self.writer.close()

    def write(self, table: pa.Table) -> None:
        self.pending.append(table)
        self.num_pending += len(table)
        while self.num_pending >= ROW_GROUP:
            self._write_group(ROW_GROUP)

    def _write_group(self, count: int) -> None:
        pending = pa.concat_tables(self.pending)
        group, rest = pending.slice(0, count).combine_chunks(), pending.slice(count)
        self.pending, self.num_pending = [rest], len(rest)
        self.writing.result()
        self.writing = self.pool.submit(self.writer.write_table, group)
