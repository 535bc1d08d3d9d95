"""Data sets of the hub, in the layouts that there are: read as the same files in a folder are."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_stub import Hub, hub_stub, library_at

from components.errors import UserError
from components.tokenize.read import read_source
from components.tokenize.rows import Source, tables_of

SPLITS = ("train", "validation", "test")


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Hub]:
    with hub_stub() as stub, library_at(stub.url, tmp_path / "cache"):
        yield stub


def parquet(first: str = "good", text: str = "sentence", label: str = "label") -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({text: [first, "bad"], label: [1, 0]}), file)
    return file.getvalue()


def csv(first: str, text: str = "sentence", label: str = "label") -> bytes:
    return f"{text},{label}\n{first},1\nbad,0\n".encode()


def read(source: object, task: str = "sst2", text_columns: tuple[str, ...] = (), label_column: str = "") -> Source:
    return read_source(task, str(source), text_columns, label_column, False, 20, 0)


LAYOUTS = {
    "sst2/{}-00000-of-00001.parquet": parquet,
    "sst2/{}/0000.parquet": parquet,
    "default/{}/0000.parquet": parquet,
    "data/{}-00000-of-00001.parquet": parquet,
    "{}.parquet": parquet,
    "{}.csv": csv,
}


CASES = [(layout, False) for layout in LAYOUTS] + [(layout, True) for layout in LAYOUTS if not layout.startswith("sst2")]


@pytest.mark.parametrize(("layout", "own"), CASES)
def test_it_is_read_as_the_same_files_in_a_folder_are(stub: Hub, tmp_path: Path, layout: str, own: bool) -> None:
    columns = (("words",), "mood") if own else ((), "")
    names = ("words", "mood") if own else ("sentence", "label")
    wanted = {layout.format(split): LAYOUTS[layout](split, *names) for split in SPLITS}
    others = {"README.md": b"#", "rte/train-00000-of-00001.parquet": b"-", "data/training.parquet": b"-", "train.jsonl": b"-"}
    commit = stub.add("dataset", "owner/data").commit({**wanted, **others})
    for path, there in wanted.items():
        (tmp_path / "here" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / path).write_bytes(there)
    found = read("hub:owner/data", "sst2", *columns)
    fetched = {
        line.partition(commit)[2].removeprefix("/") for line in stub.requests if line.startswith("GET") and "resolve" in line
    }
    assert fetched == set(wanted)
    here = read(tmp_path / "here", "sst2", *columns)
    assert found.inputs == here.inputs
    assert set(found.inputs) == set(wanted)
    for split in SPLITS:
        one, other = (pa.concat_tables(tables_of(it.splits[split]())).to_pydict() for it in (found, here))
        assert one == other
        assert one["label"] == [1, 0]


def test_mnli_takes_the_diagnostic_set_along_from_there_too(stub: Hub) -> None:
    repository = stub.add("dataset", "owner/data")
    table, file = pa.table({"premise": ["a"], "hypothesis": ["b"], "label": [-1]}), io.BytesIO()
    pq.write_table(table, file)
    files = {"mnli/test_matched-00000-of-00001.parquet": file.getvalue()}
    alone = repository.commit(files)
    repository.commit({**files, "ax/test-00000-of-00001.parquet": file.getvalue()})
    assert set(read(f"hub:owner/data@{alone}", "mnli").splits) == {"test_matched"}
    assert set(read("hub:owner/data", "mnli").splits) == {"test_matched", "test_ax"}


def test_a_repository_without_such_files_is_refused_with_what_to_try(stub: Hub) -> None:
    repository = stub.add("dataset", "owner/data")
    repository.commit({"sst2.jsonl": b"{}", "README.md": b"#"})
    message = (
        r"^hub:owner/data has no files of '\w+' \(.*\), but sst2.jsonl, README.md: "
        r"try the hub's Parquet copy, --source hub:owner/data@refs/convert/parquet$"
    )
    with pytest.raises(UserError, match=message):
        read("hub:owner/data")
    with pytest.raises(UserError, match=message):
        read("hub:owner/data", "mine", ("text",), "label")
    repository.commit({"default/train/0000.parquet": parquet()}, "refs/convert/parquet")
    assert set(read("hub:owner/data@refs/convert/parquet").splits) == {"train"}


def test_no_hub_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^cannot find nyu-mll/glue on the hub: .* give --source a folder$"):
        read("hub", "rte")
