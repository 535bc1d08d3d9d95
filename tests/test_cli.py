"""The commands as typed: what goes wrong is one line on stderr and code 2, and nothing is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import run_module


def refused(module: str, *arguments: object) -> str:
    done = run_module(module, *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "task is not given: give --task"),
        (["--task", "sst2", "--source", "sample", "--model", "tiny"], "--output-dir"),
        (["--task", "nope", "--source", "sample", "--model", "tiny"], "unknown task 'nope'"),
        (["--task", "sst2", "--source", "/absent", "--model", "tiny"], "no source '/absent'"),
        (["--task", "sst2", "--source", "sample", "--model", "tiny", "--max-length", "many"], "--max-length"),
        (["--task", "sst2", "--source", "sample", "--model", "tiny", "--max-length", "4"], "max_length is 4"),
        (["--task", "sst2", "--source", "sample", "--model", "tiny", "--max-length", "1000"], "takes at most 512"),
        (["--task", "sst2", "--source", "sample", "--model", "no-such/model"], "cannot load model 'no-such/model'"),
        (["--task", "sst2", "--source", "sample", "--modle", "tiny"], "--modle"),
    ],
)
def test_tokenize_refuses(tmp_path: Path, arguments: list[str], message: str) -> None:
    where = ["--output-dir", tmp_path / "out"] if "--output-dir" not in message else []
    assert message in refused("components.tokenize", *arguments, *where)
    assert list(tmp_path.iterdir()) == []


def test_own_data_by_command(tmp_path: Path) -> None:
    rows = [f"q{number},a{number},{'no' if number % 2 else 'yes'}" for number in range(20)]
    (tmp_path / "own.csv").write_text("\n".join(["question,answer,verdict", *rows]))
    columns = ["--text-columns", "question", "answer", "--label-column", "verdict"]
    arguments = ["--task", "faq", "--source", tmp_path / "own.csv", "--model", "tiny", "--output-dir", tmp_path / "d"]
    done = run_module("components.tokenize", *arguments, *columns)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "d").glob("*.parquet")} == {"train.parquet", "validation.parquet"}


def test_an_output_folder_with_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    arguments = ["--task", "sst2", "--source", "sample", "--model", "tiny", "--output-dir", tmp_path]
    assert "no output of ours: choose another" in refused("components.tokenize", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_train_evaluate_and_register_refuse_what_is_no_output_of_the_stage_before(
    tokenized: Callable[[str], Path], tmp_path: Path
) -> None:
    data = tokenized("sst2")
    assert "has no manifest.json" in refused(
        "components.train", "--data-dir", tmp_path, "--model", "tiny", "--output-dir", tmp_path / "m"
    )
    assert "method is 'x': give one of plain, scala" in refused(
        "components.train", "--data-dir", data, "--model", "tiny", "--method", "x", "--output-dir", "m"
    )
    assert "not by components.train" in refused(
        "components.evaluate", "--model-dir", data, "--data-dir", data, "--output-dir", tmp_path / "e"
    )
    assert "not by components.train" in refused("components.register", "--model-dir", data, "--evaluation-dir", data)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "option"),
    [("tokenize", "--output-dir"), ("train", "--data-dir"), ("evaluate", "--model-dir"), ("register", "--evaluation-dir")],
)
def test_a_place_in_a_store_is_no_folder(module: str, option: str) -> None:
    folders = {
        "tokenize": ["--task", "rte", "--source", "sample", "--model", "tiny", "--output-dir", "a"],
        "train": ["--data-dir", "a", "--output-dir", "b"],
        "evaluate": ["--model-dir", "a", "--data-dir", "b", "--output-dir", "c"],
        "register": ["--model-dir", "a", "--evaluation-dir", "b"],
    }[module]
    folders[folders.index(option) + 1] = "s3://bucket/place"
    assert f"{option} is s3://bucket/place: give a path on this machine" in refused(f"components.{module}", *folders)
