"""Parts that are tokenized apart and merged are, byte for byte, what one process writes."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import run_module

from components.artifacts.folders import CACHE, Manifest, read_manifest
from components.errors import UserError
from components.tokenize import read
from components.tokenize.merge import merge
from components.tokenize.stage import PART, tokenize

NUM_ROWS = 3210
COLUMNS: dict[str, list[Any]] = {
    "sentence1": [f"row {number} " + "fine film " * (number % 7) for number in range(NUM_ROWS)],
    "sentence2": [f"a film of {number}" for number in range(NUM_ROWS)],
    "label": [number % 2 for number in range(NUM_ROWS)],
}
LABELS = ("entailment", "not_entailment")


def official(folder: Path, malformed: tuple[int, ...] = (17, 1500, 3000)) -> dict[str, Any]:
    """RTE's own TSV; after the rows `malformed` comes one with too few fields."""
    (folder / "RTE").mkdir(parents=True)
    for name, count in (("train", NUM_ROWS), ("dev", 1100)):
        lines = ["index\tsentence1\tsentence2\tlabel"]
        for row in range(count):
            lines.append(f"{row}\t{COLUMNS['sentence1'][row]}\t{COLUMNS['sentence2'][row]}\t{LABELS[row % 2]}")
            if name == "train" and row in malformed:
                lines.append("bad\trow")
        (folder / "RTE" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return {"task": "rte", "source": str(folder), "skip_malformed_rows": True}


def parquet(folder: Path) -> dict[str, Any]:
    """The Hugging Face schema; files and row groups that end nowhere near the shards do."""
    (folder / "rte").mkdir(parents=True)
    table = pa.table(COLUMNS)
    for number, (start, stop) in enumerate([(0, 1300), (1300, NUM_ROWS)]):
        path = folder / "rte" / f"train-{number:05}-of-00002.parquet"
        pq.write_table(table.slice(start, stop - start), path, row_group_size=700)
    pq.write_table(table.slice(0, 1100), folder / "rte" / "validation.parquet")
    return {"task": "rte", "source": str(folder)}


def own(folder: Path) -> dict[str, Any]:
    """A CSV, of which a tenth is held out."""
    folder.mkdir(parents=True)
    with (folder / "own.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *zip(*COLUMNS.values(), strict=True)])
    texts = ["sentence1", "sentence2"]
    return {"task": "mine", "source": str(folder / "own.csv"), "text_columns": texts, "label_column": "label"}


def sample(folder: Path) -> dict[str, Any]:
    return {"task": "sst2", "source": "sample", "num_sample_rows": 2500}


SOURCES: dict[str, Callable[[Path], dict[str, Any]]] = {it.__name__: it for it in (official, parquet, own, sample)}


def write(folder: Path, arguments: dict[str, Any], **more: Any) -> Manifest:
    return tokenize(**arguments, model="tiny", max_length=24, shard_rows=1000, output_dir=folder, **more)


def write_parts(folder: Path, arguments: dict[str, Any], num_parts: int) -> list[Path]:
    folders = [folder / str(part) for part in range(num_parts)]
    for part, place in enumerate(folders):
        write(place, arguments, part=part, num_parts=num_parts)
    return folders


def decided(manifest: Manifest) -> dict[str, Any]:
    """All that a manifest says but for when and by what it was made."""
    return {name: value for name, value in manifest.items() if name not in ("seconds", "made_by")}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three parts of Parquet."""
    folder = tmp_path_factory.mktemp("parts")
    return write_parts(folder, parquet(folder / "raw"), 3)


@pytest.mark.parametrize("source", SOURCES)
def test_parts_make_the_same_bytes_as_one_process(tmp_path: Path, source: str) -> None:
    arguments = SOURCES[source](tmp_path / "raw")
    whole = write(tmp_path / "whole", arguments)
    assert any(name.startswith("train-00002-of-") for name in whole["files"])
    for num_parts in (1, 2, 3, 5):
        folders = write_parts(tmp_path / str(num_parts), arguments, num_parts)
        merged = merge(part_dirs=folders[::-1], output_dir=tmp_path / f"merged-{num_parts}")
        assert decided(merged) == decided(whole)
        for name in whole["files"]:
            assert (tmp_path / f"merged-{num_parts}" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
        assert decided(read_manifest(tmp_path / f"merged-{num_parts}", "tokenize")) == decided(whole)
        assert all(read_manifest(folder, PART) for folder in folders)  # untouched
    if source == "official":
        assert json.loads((tmp_path / "merged-3" / "statistics.json").read_text())["skipped_rows"] == 3


def test_a_part_more_than_there_are_files_is_empty(tmp_path: Path) -> None:
    manifest = write(tmp_path / "part", sample(tmp_path), part=4, num_parts=5)
    assert [name for name in manifest["files"] if name.endswith(".parquet")] == []


@pytest.mark.parametrize("line_of", [17, 1500, 3000])
def test_a_malformed_row_is_named_by_the_part_that_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line_of: int
) -> None:
    monkeypatch.setattr(read, "ROWS_AT_ONCE", 500)  # 10,000 would be most of the file
    arguments = {**official(tmp_path / "raw", malformed=(line_of,)), "skip_malformed_rows": False}
    holder = (line_of + 1) // 1000 % 3
    for part in range(3):
        if part != holder:
            write(tmp_path / str(part), arguments, part=part, num_parts=3)
    with pytest.raises(UserError, match=rf"RTE/train\.tsv:{line_of + 3}: 2 fields instead of 4"):
        write(tmp_path / str(holder), arguments, part=holder, num_parts=3)
    assert not (tmp_path / str(holder)).exists()


def test_a_part_reads_only_the_row_groups_that_have_its_rows(tmp_path: Path) -> None:
    """Row group 1 of the second file, rows 2000 to 2699, is made unreadable: only its own part, of file 2, stumbles."""
    arguments = parquet(tmp_path / "raw")
    path = tmp_path / "raw" / "rte" / "train-00001-of-00002.parquet"
    digests = tmp_path / "digests.json"
    digests.write_text(json.dumps(write(tmp_path / "whole", arguments)["origins"]["source"]["files"]))
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(content)
    for part in (0, 1, 3, 4):
        write(tmp_path / str(part), arguments, part=part, num_parts=5, source_files=digests)
    with pytest.raises(UserError, match=r"train-00001-of-00002\.parquet: damaged"):
        write(tmp_path / "2", arguments, part=2, num_parts=5, source_files=digests)


def test_known_digests_are_taken_as_they_are(tmp_path: Path, parts: list[Path]) -> None:
    made = read_manifest(parts[1], PART)
    arguments = {"task": "rte", "source": made["parameters"]["source"]}
    digests = tmp_path / "digests.json"
    digests.write_text(json.dumps(made["origins"]["source"]["files"]))
    assert decided(write(tmp_path / "again", arguments, part=1, num_parts=3, source_files=digests)) == decided(made)
    digests.write_text(json.dumps({"rte/train.parquet": "0" * 64}))
    with pytest.raises(UserError, match=r"digests\.json names other files than the source has"):
        write(tmp_path / "other", arguments, part=1, num_parts=3, source_files=digests)


def test_what_is_not_all_the_parts_of_one_whole_is_refused(tmp_path: Path, parts: list[Path]) -> None:
    other = write_parts(tmp_path / "other", {**sample(tmp_path), "seed": 1}, 3)
    for given, message in (
        (parts[:2], "part 2 of 3 is missing"),
        (parts[1:2], "part 0, 2 of 3 is missing"),
        ([*parts, parts[1]], "part 1 is given more than once"),
        ([*parts[:2], other[2]], r"other/2 is no part of what .* is a part of: they differ in .*source"),
        ([tmp_path], r"has no manifest\.json: give the folder that components\.tokenize --part wrote"),
        ([], "no parts"),
    ):
        with pytest.raises(UserError, match=message):
            merge(part_dirs=given, output_dir=tmp_path / "merged")
        assert not (tmp_path / "merged").exists()


def test_a_part_is_not_taken_for_the_whole(parts: list[Path]) -> None:
    with pytest.raises(UserError, match=r"was written by components\.tokenize --part, not by components\.tokenize"):
        read_manifest(parts[0], "tokenize")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"part": 3, "num_parts": 3}, "part 3 of 3: parts are counted from 0"),
        ({"part": 1}, "part 1 of 0"),
        ({"num_parts": -2}, "part 0 of -2"),
        ({"part": 0, "num_parts": 2, "shard_rows": 1500}, "shard_rows is 1500: to tokenize in parts give a multiple of 1000"),
    ],
)
def test_impossible_parts_are_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tokenize(**sample(tmp_path), model="tiny", output_dir=tmp_path / "part", **given)


def test_one_process_takes_what_parts_have_left_in_the_cache(
    tmp_path: Path, parts: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    merged = merge(part_dirs=parts, output_dir=tmp_path / "merged")
    arguments = {"task": "rte", "source": merged["parameters"]["source"]}
    assert write(tmp_path / "whole", arguments) == merged
    assert "tokenize: cached, from" in capsys.readouterr().out


def test_the_command_line(tmp_path: Path, parts: list[Path]) -> None:
    flags = ("--task", "rte", "--source", read_manifest(parts[0], PART)["parameters"]["source"], "--model", "tiny")
    cut = ("--max-length", 24, "--shard-rows", 1000, "--part", 2, "--num-parts", 3)
    done = run_module("components.tokenize", *flags, *cut, "--output-dir", tmp_path / "part")
    assert done.returncode == 0, done.stderr
    assert "part 2 of 3, counted from 0: files 1 of train, 0 of validation\n" in done.stdout
    places = ("--part-dirs", *parts[:2], tmp_path / "part")
    done = run_module("components.tokenize.merge", *places, "--output-dir", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    assert "train: 3210 rows, " in done.stdout
    assert read_manifest(tmp_path / "merged", "tokenize")
    missing = run_module("components.tokenize.merge", *places[:2], "--output-dir", tmp_path / "merged-2")
    assert (missing.returncode, missing.stderr) == (2, "error: part 1, 2 of 3 is missing: give all parts, counted from 0\n")
