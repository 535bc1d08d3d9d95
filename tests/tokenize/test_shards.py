"""Where a row lands depends on its number alone, however it came, and whoever writes it."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.tokenize import shards
from components.tokenize.rows import Stretch
from components.tokenize.shards import ShardWriter, shard_name, share

SCHEMA = pa.schema([("label", pa.int64()), ("idx", pa.int32())])


def rows(start: int, stop: int) -> pa.Table:
    return pa.table({"label": [number % 2 for number in range(start, stop)], "idx": range(start, stop)}, SCHEMA)


def write(path: Path, total: int, at_once: int) -> pq.ParquetFile:
    with ShardWriter(path, SCHEMA) as writer:
        for start in range(0, total, at_once):
            writer.write(rows(start, min(start + at_once, total)))
    return pq.ParquetFile(path)


@pytest.mark.parametrize("at_once", [1, 3, 10, 100])
def test_row_groups_are_cut_by_row_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(shards, "ROW_GROUP", 4)
    file = write(tmp_path / "d", 10, at_once)
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [4, 4, 2]
    assert file.read()["idx"].to_pylist() == list(range(10))


def test_what_came_in_other_pieces_is_the_same_to_the_byte(tmp_path: Path) -> None:
    for name, at_once in (("a", 7), ("b", 50)):
        write(tmp_path / name, 100, at_once)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_names_are_those_that_the_hub_has() -> None:
    assert [shard_name("train", 2), shard_name("train", 0, 1)] == ["train-00002.parquet", "train.parquet"]
    assert shard_name("train", 2, 3) == "train-00002-of-00003.parquet"


@pytest.mark.parametrize("num_parts", [1, 2, 3, 5, 30])
@pytest.mark.parametrize("lengths", [[23], [5, 5, 5, 5, 3], [1] * 23, [7, 0, 9, 7], [20, 3]])
def test_each_row_is_of_one_part_and_no_part_reads_what_has_none_of_its_rows(num_parts: int, lengths: list[int]) -> None:
    shard_rows, at_once = 5, 2
    seen: list[tuple[int, int]] = []
    for part in range(num_parts):
        stretches: list[Stretch] = []
        read: list[int] = []
        start = 0
        for length in lengths:

            def tables(start: int = start, stop: int = start + length, read: list[int] = read) -> Iterator[pa.Table]:
                read.append(start)
                for first in range(start, stop, at_once):
                    yield rows(first, min(first + at_once, stop))

            stretches.append(Stretch(length, tables))
            start += length
        mine = [
            (shard, row)
            for shard, table in share(iter(stretches), shard_rows, part, num_parts)
            for row in table["idx"].to_pylist()
        ]
        assert all(shard == row // shard_rows and shard % num_parts == part for shard, row in mine)
        assert mine == sorted(mine)
        seen += mine
        starts = [sum(lengths[:number]) for number in range(len(lengths))]
        ours = {row for _, row in mine}
        assert read == [
            first for first, length in zip(starts, lengths, strict=True) if ours & set(range(first, first + length))
        ]
    assert sorted(row for _, row in seen) == list(range(23))
