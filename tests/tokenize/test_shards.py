"""Where a row lands depends on its number alone, however it came."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.tokenize import shards
from components.tokenize.shards import ShardWriter

SCHEMA = pa.schema([("label", pa.int64()), ("idx", pa.int32())])


def rows(start: int, stop: int) -> pa.Table:
    return pa.table({"label": [number % 2 for number in range(start, stop)], "idx": range(start, stop)}, SCHEMA)


def write(folder: Path, total: int, at_once: int, shard_rows: int) -> dict[str, pq.ParquetFile]:
    folder.mkdir()
    with ShardWriter(folder, "train", SCHEMA, shard_rows) as writer:
        for start in range(0, total, at_once):
            writer.write(rows(start, min(start + at_once, total)))
    return {path.name: pq.ParquetFile(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("at_once", [1, 3, 10, 100])
def test_files_and_row_groups_are_cut_by_row_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(shards, "ROW_GROUP", 4)
    files = write(tmp_path / "d", 23, at_once, 10)
    assert list(files) == [f"train-0000{number}-of-00003.parquet" for number in range(3)]
    sizes = [[file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] for file in files.values()]
    assert sizes == [[4, 4, 2], [4, 4, 2], [3]]
    assert [number for file in files.values() for number in file.read()["idx"].to_pylist()] == list(range(23))


@pytest.mark.parametrize(("total", "shard_rows", "names"), [(0, 5, 1), (5, 5, 1), (10, 5, 2), (11, 5, 3)])
def test_there_is_no_empty_file_but_for_an_empty_split(tmp_path: Path, total: int, shard_rows: int, names: int) -> None:
    files = write(tmp_path / "d", total, 3, shard_rows)
    assert len(files) == names
    assert ("train.parquet" in files) == (names == 1)
    assert sum(file.metadata.num_rows for file in files.values()) == total


def test_what_came_in_other_pieces_is_the_same_to_the_byte(tmp_path: Path) -> None:
    for name, at_once in (("a", 7), ("b", 50)):
        write(tmp_path / name, 100, at_once, 40)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_an_error_names_no_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path / "d", "train", SCHEMA, 5) as writer:
        writer.write(rows(0, 12))
        print(1 / 0)
    assert not list((tmp_path / "d").glob("train*"))
