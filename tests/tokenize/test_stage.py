"""What is written: the tokenizer's own tokens, in bytes that do not depend on how many cores made them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import ROOT

from components.errors import UserError
from components.modeling.load import load_tokenizer
from components.tokenize.digest import text_digests
from components.tokenize.read import read_source
from components.tokenize.rows import tables_of
from components.tokenize.stage import tokenize


def write_pairs(folder: Path, num_rows: int) -> Path:
    """RTE's schema, texts from 1 to 60 words."""
    table = {
        "sentence1": [f"row {number} " + "fine film " * (number % 30) for number in range(num_rows)],
        "sentence2": [f"a film of {number}" for number in range(num_rows)],
        "label": [number % 2 for number in range(num_rows)],
    }
    (folder / "rte").mkdir(parents=True)
    pq.write_table(pa.table(table), folder / "rte" / "train.parquet")
    return folder


@pytest.mark.parametrize("max_length", [16, 128])
def test_tokens_are_those_of_the_tokenizer_itself(tmp_path: Path, max_length: int) -> None:
    source = write_pairs(tmp_path / "raw", 1203)
    tokenize(task="rte", source=str(source), model="tiny", output_dir=tmp_path / "data", max_length=max_length)
    texts = pq.read_table(source / "rte" / "train.parquet").to_pydict()
    written = pq.read_table(tmp_path / "data" / "train.parquet").to_pydict()
    tokenizer = load_tokenizer("tiny")
    expected = tokenizer(texts["sentence1"], texts["sentence2"], truncation=True, max_length=max_length)
    assert written["input_ids"] == expected["input_ids"]
    assert written["token_type_ids"] == expected["token_type_ids"]
    assert written["label"] == texts["label"]
    assert written["idx"] == list(range(1203))
    raw = pq.read_table(source / "rte" / "train.parquet")
    assert written["text_digest"] == text_digests(raw, ["sentence1", "sentence2"]).tolist()

    statistics = json.loads((tmp_path / "data" / "statistics.json").read_text())["splits"]["train"]
    lengths = sorted(map(len, expected["input_ids"]))
    untruncated = tokenizer(texts["sentence1"], texts["sentence2"])["input_ids"]
    assert statistics["rows"] == 1203
    assert statistics["tokens"] == sum(lengths)
    assert statistics["median_length"] == lengths[601]
    assert statistics["max_length"] == lengths[-1]
    assert statistics["truncated"] == sum(len(ids) > max_length for ids in untruncated)
    assert statistics["truncated"] > 0
    assert statistics["labels"] == {"entailment": 602, "not_entailment": 601}


def test_single_texts_have_zeros_for_types(tmp_path: Path) -> None:
    tokenize(task="cola", source="sample", model="tiny", output_dir=tmp_path / "data", num_sample_rows=30)
    written = pq.read_table(tmp_path / "data" / "train.parquet").to_pydict()
    assert [len(types) for types in written["token_type_ids"]] == [len(ids) for ids in written["input_ids"]]
    assert {number for types in written["token_type_ids"] for number in types} == {0}


@pytest.mark.parametrize("task", ["mnli", "stsb", "cola"])
def test_validation_splits_keep_their_texts(tmp_path: Path, task: str) -> None:
    folder = tmp_path / "data"
    tokenize(task=task, source="sample", model="tiny", output_dir=folder, num_sample_rows=20)
    raw = read_source(task, "sample", (), "", False, 20, 0)
    for split in raw.splits:
        rows = pa.concat_tables(tables_of(raw.splits[split]()))
        written = pq.read_table(folder / f"{split}.parquet")
        assert written.schema.field("text_digest").type == pa.int64()
        assert written["text_digest"].to_pylist() == text_digests(rows, raw.task.text_columns).tolist()
        assert ("texts" in written.column_names) == split.startswith("validation")
        if split.startswith("validation"):
            texts = [list(row.values()) for row in rows.select(list(raw.task.text_columns)).to_pylist()]
            assert written["texts"].to_pylist() == texts
            assert written.schema.field("texts").type == pa.list_(pa.string())


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "raw", 2500)
    written = []
    for workers in ("1", "3"):
        flags = ["--task", "rte", "--source", source, "--model", "tiny", "--output-dir", tmp_path / workers]
        command = [sys.executable, "-m", "components.tokenize", *map(str, flags)]
        subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "RAYON_NUM_THREADS": workers})
        written.append((tmp_path / workers / "train.parquet").read_bytes())
    assert written[0] == written[1]


def test_a_bad_row_far_down_leaves_nothing(tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "raw", 25_000)
    table = pq.read_table(source / "rte" / "train.parquet").to_pydict()
    table["label"][24_321] = 7
    pq.write_table(pa.table(table), source / "rte" / "train.parquet")
    with pytest.raises(UserError, match=r"train\.parquet, row 24321: label '7' is none of entailment, not_entailment"):
        tokenize(task="rte", source=str(source), model="tiny", output_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("columns", "label", "message"),
    [
        (["text"], "", "--text-columns goes with --label-column"),
        (["a", "b", "c"], "label", "names 3 columns"),
        (["text"], "label", r"no file '/absent\.csv'"),
    ],
)
def test_columns_that_do_not_go_together_are_refused(tmp_path: Path, columns: list[str], label: str, message: str) -> None:
    own: dict[str, Any] = {"source": "/absent.csv", "text_columns": columns, "label_column": label}
    with pytest.raises(UserError, match=message):
        tokenize(task="own", model="tiny", output_dir=tmp_path / "data", **own)
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Ten times the rows, at most 100 MB more."""
    peaks = []
    for num_rows in (100_000, 1_000_000):
        folder = tmp_path / str(num_rows)
        (folder / "raw" / "sst2").mkdir(parents=True)
        schema = pa.schema({"sentence": pa.string(), "label": pa.int64()})
        with pq.ParquetWriter(folder / "raw" / "sst2" / "train.parquet", schema) as writer:
            for start in range(0, num_rows, 50_000):
                rows = range(start, start + 50_000)
                part = {
                    "sentence": [f"film {row} was fine and number {row * 7} was not" for row in rows],
                    "label": [0, 1] * 25_000,
                }
                writer.write_table(pa.table(part, schema))
        code = (
            "import resource, sys; from pathlib import Path; from components.tokenize.stage import tokenize; "
            f"tokenize(task='sst2', source='{folder / 'raw'}', model='tiny', output_dir=Path('{folder / 'data'}')); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 100, peaks
