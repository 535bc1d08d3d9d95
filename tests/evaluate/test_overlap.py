"""What of the validation texts the model was trained on is counted, and said."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.artifacts.folders import Artifact
from components.errors import UserError
from components.evaluate.overlap import also_in_training
from components.evaluate.stage import evaluate, flat, summary
from components.tasks.metrics import measure, score
from components.tasks.table import TASKS
from components.tokenize.stage import tokenize
from components.train.stage import train

VALIDATION = [(f"a film of {row}", ("bad", "good")[row % 2]) for row in range(20)]


def made(folder: Path, training: list[tuple[str, str]], validation: list[tuple[str, str]]) -> dict[str, Any]:
    """A model, trained on these rows, and the data."""
    (folder / "raw").mkdir(parents=True)
    for split, rows in (("train", training), ("validation", validation)):
        with (folder / "raw" / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("review", "verdict"), *rows])
    own: dict[str, Any] = {"text_columns": ["review"], "label_column": "verdict"}
    tokenize(task="films", source=str(folder / "raw"), **own, model="tiny", output_dir=folder / "data")
    train(data_dir=folder / "data", model="tiny", output_dir=folder / "model", num_epochs=1, learning_rate=1e-3)
    return {"model_dir": folder / "model", "data_dir": folder / "data"}


def test_validation_texts_that_stand_in_training_are_counted_and_the_score_is_told_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three of 20, one of them with another label; a training text twice counts once."""
    others = [(f"a play of {row}", ("bad", "good")[row % 2]) for row in range(30)]
    training = [*others, *VALIDATION[4:6], VALIDATION[4], (VALIDATION[9][0], "bad")]
    evaluate(**made(tmp_path, training, VALIDATION), output_dir=tmp_path / "e", robustness_rows=0)
    results = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert results["text_columns"] == ["review"]
    predicted = pq.read_table(tmp_path / "e" / "predictions.parquet")
    assert predicted["texts"].to_pylist() == [[text] for text, _ in VALIDATION]
    stored = pq.read_table(tmp_path / "e" / "trained_on.parquet")
    known = stored["text_digest"].to_pylist()
    assert stored.column_names == ["text_digest"]
    assert len(known) == 33
    assert known == sorted(known)
    rows = predicted.to_pandas()
    seen = rows["text_digest"].isin(known)
    assert np.flatnonzero(seen).tolist() == [4, 5, 9]
    unseen = rows[~seen]
    metrics = measure(TASKS["mrpc"], unseen["label"].to_numpy(), unseen["prediction"].to_numpy())  # accuracy and f1
    without = results["splits"]["validation"]["also_in_training"]["without"]
    assert results["splits"]["validation"]["also_in_training"]["rows"] == 3
    assert without == {"rows": 17, "metrics": metrics, "score": score(metrics)}
    assert flat(results)["validation_score_without_training_texts"] == score(metrics)
    said = f"3 of 20 validation texts also stand in training; without them the score is {score(metrics):.4f}"
    assert said in capsys.readouterr().out
    assert all(said in (tmp_path / "e" / name).read_text() for name in ("report.html", "summary.md"))


def test_nothing_is_said_where_nothing_is_the_same(evaluated: Callable[[str], Path]) -> None:
    results = json.loads((evaluated("sst2") / "metrics.json").read_text())
    for result in results["splits"].values():
        result["also_in_training"] = {"rows": 0}
    assert not any("training" in line for line in summary(results))


def test_a_split_of_nothing_else_has_no_score_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = made(tmp_path, VALIDATION, VALIDATION)
    evaluate(**folders, output_dir=tmp_path / "e", robustness_rows=0)
    results = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert results["splits"]["validation"]["also_in_training"] == {"rows": 20}
    assert "20 of 20 validation texts also stand in training: the score says nothing" in capsys.readouterr().out

    other = made(tmp_path / "other", VALIDATION[:10], VALIDATION[10:])
    evaluate(model_dir=folders["model_dir"], data_dir=other["data_dir"], output_dir=tmp_path / "f", robustness_rows=0)
    results = json.loads((tmp_path / "f" / "metrics.json").read_text())
    assert "also_in_training" not in results["splits"]["validation"]
    assert not (tmp_path / "f" / "trained_on.parquet").exists()
    assert "trained on other data: how many of these validation texts it has seen is not known" in capsys.readouterr().out


def test_data_of_an_earlier_version_are_refused(
    tokenized: Callable[[str], Path], trained: Callable[[str], Path], tmp_path: Path
) -> None:
    with Artifact(tmp_path / "data", "tokenize", {}, {}).building() as folder:
        shutil.copytree(tokenized("sst2"), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        table = pq.read_table(folder / "validation.parquet")
        pq.write_table(table.drop_columns(["texts", "text_digest"]), folder / "validation.parquet")
    with pytest.raises(UserError, match=r"written by an earlier version of components\.tokenize: tokenize again"):
        evaluate(model_dir=trained("sst2"), data_dir=tmp_path / "data", output_dir=tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_a_regression_and_digests_beyond_the_last_are_counted() -> None:
    digests = np.array([5, 7, 2**63 - 1, -9])
    labels, predictions = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 0.0, 3.5, 4.0])
    counted = also_in_training(TASKS["stsb"], labels, predictions, digests, np.array([7, 9]))
    rest = [0, 2, 3]
    assert counted["rows"] == 1
    assert counted["without"]["metrics"] == measure(TASKS["stsb"], labels[rest], predictions[rest])
    assert also_in_training(TASKS["stsb"], labels, predictions, digests, np.array([1])) == {"rows": 0}
