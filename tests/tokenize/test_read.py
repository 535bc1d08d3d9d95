"""Sources, good and bad. Real files in every layout; each bad one must be named, with its line where there is one."""

import csv
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from components.tasks.table import TASKS, UNLABELLED
from components.tokenize.read import read_source
from components.tokenize.rows import Source, tables_of


def read(
    task: str, source: Path | str, text_columns: tuple[str, ...] = (), label_column: str = "", skip: bool = False
) -> Source:
    """The source, after a look at every row."""
    found = read_source(task, str(source), text_columns, label_column, skip, 20, 0)
    for split in found.splits:
        whole(found, split)
    return found


def whole(found: Source, split: str) -> pa.Table:
    return pa.concat_tables(tables_of(found.splits[split]())).combine_chunks()


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def official_sst2(folder: Path) -> Path:
    write(folder / "SST-2" / "train.tsv", "sentence\tlabel", 'a "quoted film \t1', "dull \t0")
    write(folder / "SST-2" / "dev.tsv", "sentence\tlabel", "good\t1")
    write(folder / "SST-2" / "test.tsv", "index\tsentence", "0\tunknown")
    return folder


def test_official_files_are_unquoted_and_test_rows_unlabelled(tmp_path: Path) -> None:
    found = read("sst2", official_sst2(tmp_path))
    assert whole(found, "train").to_pydict() == {"sentence": ['a "quoted film ', "dull "], "label": [1, 0], "idx": [0, 1]}
    assert whole(found, "test")["label"].to_pylist() == [UNLABELLED]
    assert set(found.inputs) == {"SST-2/train.tsv", "SST-2/dev.tsv", "SST-2/test.tsv"}


def test_cola_has_no_header_in_its_labelled_files(tmp_path: Path) -> None:
    write(tmp_path / "CoLA" / "train.tsv", "gj04\t1\t\tWe sleep.", "gj04\t0\t*\tSleep we.")
    write(tmp_path / "CoLA" / "test.tsv", "index\tsentence", "0\tThey sleep.")
    found = read("cola", tmp_path)
    assert whole(found, "train")["sentence"].to_pylist() == ["We sleep.", "Sleep we."]
    assert whole(found, "train")["label"].to_pylist() == [1, 0]
    assert whole(found, "test")["sentence"].to_pylist() == ["They sleep."]


def test_every_task_is_read_from_its_official_columns(tmp_path: Path) -> None:
    for task in TASKS.values():
        for split, file in task.files.items():
            labelled = not split.startswith("test")
            texts = list(task.official_text or task.text_columns)
            header = list(task.header) if task.header and labelled else ["index", *texts, *([task.official_label] * labelled)]
            label = task.label_names[-1] if task.label_names else "4.5"
            values = {**dict.fromkeys(header, "x"), **{name: f"text of {name}" for name in texts}, task.official_label: label}
            lines = [] if task.header and labelled else ["\t".join(header)]
            write(tmp_path / task.folder / file, *lines, "\t".join(values[name] for name in header))
        found = read(task.name, tmp_path)
        assert set(found.splits) == set(task.files)
        first = whole(found, next(iter(task.files))).to_pylist()[0]
        assert set(first) == {*task.text_columns, "label", "idx"}
        assert all(first[column].startswith("text of ") for column in task.text_columns)
        if "train" in task.files:
            assert first["label"] == (len(task.label_names) - 1 if task.label_names else 4.5)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("name", ["{}", "{}-00000-of-00001"])
def test_hugging_face_folders(tmp_path: Path, suffix: str, name: str) -> None:
    columns = {"premise": ["a, b", 'c "d"'], "hypothesis": ["e", "f"], "label": [2, 0], "idx": [0, 1]}
    for split in TASKS["mnli"].files:
        path = tmp_path / "mnli" / f"{name.format(split)}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        if suffix == "parquet":
            pq.write_table(pa.table(columns), path)
        else:
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    found = read("mnli", tmp_path)
    assert set(found.splits) == set(TASKS["mnli"].files)
    assert whole(found, "validation_mismatched").select(["premise", "label"]).to_pydict() == {
        "premise": ["a, b", 'c "d"'],
        "label": [2, 0],
    }


@pytest.mark.parametrize("place", ["diagnostic/diagnostic.tsv", "ax/test.parquet"])
def test_mnli_takes_the_diagnostic_set_along_where_there_is_one(tmp_path: Path, place: str) -> None:
    write(tmp_path / "MNLI" / "test_matched.tsv", "index\tsentence1\tsentence2", "0\ta\tb")
    alone = read("mnli", tmp_path)
    assert set(alone.splits) == {"test_matched"}
    if place.endswith(".tsv"):
        write(tmp_path / place, "index\tsentence1\tsentence2", "0\tsome dog ran\tsome animal ran", "1\tc\td")
    else:
        (tmp_path / place).parent.mkdir()
        columns = {"premise": ["some dog ran", "c"], "hypothesis": ["some animal ran", "d"], "label": [-1, -1], "idx": [0, 1]}
        pq.write_table(pa.table(columns), tmp_path / place)
    found = read("mnli", tmp_path)
    assert set(found.splits) == {"test_matched", "test_ax"}
    assert whole(found, "test_ax").to_pydict() == {
        "premise": ["some dog ran", "c"],
        "hypothesis": ["some animal ran", "d"],
        "label": [UNLABELLED] * 2,
        "idx": [0, 1],
    }
    assert set(found.inputs) == {*alone.inputs, place}


OWN = [
    "text,team,score",
    '"it crashes, often",bug,1.5',
    "please add dark mode,feature,2.0",
    "how do I,question,2.5",
    "no,bug,0.25",
]


def test_own_data_finds_its_labels_and_holds_some_out(tmp_path: Path) -> None:
    found = read("tickets", write(tmp_path / "tickets.csv", *OWN), ("text",), "team")
    assert found.task.label_names == ("bug", "feature", "question")
    assert found.task.metrics == ("accuracy", "macro_f1")
    assert (len(whole(found, "train")), len(whole(found, "validation"))) == (3, 1)


def test_own_numbers_with_a_fraction_are_a_regression(tmp_path: Path) -> None:
    found = read("tickets", write(tmp_path / "tickets.csv", *OWN), ("text",), "score")
    assert found.task.is_regression
    assert sorted(whole(found, "train")["label"].to_pylist() + whole(found, "validation")["label"].to_pylist()) == [
        0.25,
        1.5,
        2.0,
        2.5,
    ]


def test_own_folder_with_splits_as_tsv_and_parquet(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "a\tb\ty", "x\tx\t10", "x\ty\t2")
    pq.write_table(pa.table({"a": ["p"], "b": ["q"], "y": [2]}), tmp_path / "validation.parquet")
    found = read("pairs", tmp_path, ("a", "b"), "y")
    assert found.task.label_names == ("2", "10")
    assert whole(found, "train")["label"].to_pylist() == [1, 0]
    assert whole(found, "validation")["label"].to_pylist() == [0]


def bad_row(folder: Path) -> Path:
    write(official_sst2(folder) / "SST-2" / "dev.tsv", "sentence\tlabel", "good\t1", "too\tmany\t1")
    return folder


def bad_label(folder: Path) -> Path:
    write(official_sst2(folder) / "SST-2" / "dev.tsv", "sentence\tlabel", "good\t2")
    return folder


def bad_column(folder: Path) -> Path:
    write(official_sst2(folder) / "SST-2" / "train.tsv", "text\tlabel", "good\t1")
    return folder


def empty_split(folder: Path) -> Path:
    write(official_sst2(folder) / "SST-2" / "dev.tsv", "sentence\tlabel")
    return folder


def empty_file(folder: Path) -> Path:
    (official_sst2(folder) / "SST-2" / "dev.tsv").write_text("")
    return folder


def not_utf8(folder: Path) -> Path:
    (official_sst2(folder) / "SST-2" / "dev.tsv").write_bytes(b"sentence\tlabel\n\xff\xfe\t1\n")
    return folder


def not_parquet(folder: Path) -> Path:
    write(folder / "sst2" / "train.parquet", "no")
    return folder


def parquet_label(folder: Path) -> Path:
    (folder / "sst2").mkdir()
    pq.write_table(pa.table({"sentence": ["a", "b"], "label": [0, -1]}), folder / "sst2" / "train.parquet")
    return folder


def parquet_column(folder: Path) -> Path:
    (folder / "sst2").mkdir()
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), folder / "sst2" / "train.parquet")
    return folder


def parquet_null(folder: Path) -> Path:
    (folder / "sst2").mkdir()
    pq.write_table(pa.table({"sentence": ["a", None], "label": [0, 1]}), folder / "sst2" / "train.parquet")
    return folder


def csv_row(folder: Path) -> Path:
    write(folder / "sst2" / "train.csv", "sentence,label", "a,0", "b, c,1")
    return folder


def unknown_layout(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_row, r"SST-2/dev\.tsv:3: 3 fields instead of 2"),
        (bad_label, r"SST-2/dev\.tsv:2: label '2' is none of negative, positive"),
        (bad_column, r"SST-2/train\.tsv: no column sentence; it has text, label"),
        (empty_split, r"SST-2/dev\.tsv: no rows, the validation split is empty"),
        (empty_file, r"SST-2/dev\.tsv: no column sentence, label"),
        (not_utf8, r"SST-2/dev\.tsv: not UTF-8"),
        (not_parquet, r"sst2/train\.parquet: not a Parquet file"),
        (parquet_label, r"sst2/train\.parquet, row 1: label '-1' is none of"),
        (parquet_column, r"sst2/train\.parquet: no column sentence; it has text, label"),
        (parquet_null, r"sst2/train\.parquet, row 1: column sentence is empty"),
        (csv_row, r"sst2/train\.csv:3: 3 fields instead of 2"),
        (unknown_layout, r"has no 'sst2': expected SST-2/train\.tsv"),
    ],
)
def test_bad_data_is_named_with_its_place(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read("sst2", make(tmp_path))


def test_malformed_rows_are_skipped_and_counted_on_request(tmp_path: Path) -> None:
    found = read("sst2", bad_row(tmp_path), skip=True)
    assert found.num_skipped == 1
    assert whole(found, "validation")["sentence"].to_pylist() == ["good"]


@pytest.mark.parametrize("value", ["5.1", "-0.1", "nan", "high"])
def test_a_score_out_of_range_is_refused(tmp_path: Path, value: str) -> None:
    write(tmp_path / "STS-B" / "train.tsv", "sentence1\tsentence2\tscore", f"a\tb\t{value}")
    with pytest.raises(UserError, match=rf"train\.tsv:2: label '{value}' is no number from 0 to 5"):
        read("stsb", tmp_path)


@pytest.mark.parametrize(
    ("task", "source", "text_columns", "label_column", "message"),
    [
        ("sts2", "sample", (), "", "unknown task 'sts2': choose one of cola, sst2"),
        ("sst2", "/absent", (), "", "no source '/absent'"),
        ("own", "/absent.csv", ("text",), "label", r"no file '/absent\.csv'"),
    ],
)
def test_bad_arguments_are_one_line(
    task: str, source: str, text_columns: tuple[str, ...], label_column: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(task, source, text_columns, label_column)


def test_a_file_without_text_columns_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --text-columns and --label-column"):
        read("sst2", write(tmp_path / "own.csv", *OWN))


@pytest.mark.glue
@pytest.mark.parametrize("task", ["cola", "sst2", "rte", "stsb", "wnli"])
def test_real_glue_is_the_same_from_both_layouts(glue_dir: Path, task: str) -> None:
    parquet, official = read(task, glue_dir), read(task, glue_dir / "glue_data")
    for split in ("train", "validation", "test"):
        assert whole(parquet, split).equals(whole(official, split)), split
