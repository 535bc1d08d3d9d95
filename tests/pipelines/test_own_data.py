"""A CSV that grows, through the compiled pipeline: what was held out stays held out, and the floor is of all its rows."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support import run_module

from components.artifacts.names import METRICS, PREDICTIONS, TRAINED_ON

OWN = ["--task", "tickets", "--text-columns", "subject", "body", "--label-column", "team", "--model", "tiny"]
QUICK = ["--num-epochs", 1, "--shard-rows", 200, "--robustness-rows", 50]


def tickets(start: int, stop: int) -> list[tuple[str, str, str]]:
    """Two in five are bugs; one in ten comes twice."""
    rows = [(f"ticket {row}", f"it is {row % 7} days old", "bug" if row % 5 < 2 else "wish") for row in range(start, stop)]
    return [*rows, *rows[::10]]


def adapted(folder: Path, rows: list[tuple[str, str, str]]) -> tuple[Path, dict[str, Any]]:
    """The evaluation that the pipeline made of these rows, and its metrics.json."""
    with (folder / "tickets.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("subject", "body", "team"), *rows])
    before = set(folder.glob("runs/*/*/evaluate/evaluation"))
    where = ("--source", folder / "tickets.csv", "--runs-dir", folder / "runs")
    done = run_module("pipelines.local", "adapt", *OWN, *QUICK, *where)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = set(folder.glob("runs/*/*/evaluate/evaluation")) - before
    return made, json.loads((made / METRICS).read_text())


@pytest.mark.slow
def test_a_row_is_on_its_side_however_the_file_grows_and_every_row_counts(tmp_path: Path) -> None:
    last_month = sorted(tickets(0, 600), key=lambda row: row[-1])  # bugs first: more than a file of them
    first, results = adapted(tmp_path, last_month)
    grown = random.Random(0).sample([*last_month, *tickets(600, 720)], 792)
    second, _ = adapted(tmp_path, grown)

    for name in (PREDICTIONS, TRAINED_ON):
        old, new = (set(pq.read_table(folder / name)["text_digest"].to_pylist()) for folder in (first, second))
        assert old < new
    held_out = pq.read_table(first / PREDICTIONS)
    assert set(map(tuple, held_out["texts"].to_pylist())) < {row[:2] for row in last_month}
    assert results["text_columns"] == ["subject", "body"]
    assert results["splits"]["validation"]["also_in_training"] == {"rows": 0}

    rows = 660 - len(held_out)
    assert results["baseline_rows"] == {"majority": rows, "bag_of_words": rows}
    wishes = pc.mean(pc.equal(held_out["label"], 1)).as_py()
    assert results["splits"]["validation"]["slices"]["label"][1]["rows"] == round(wishes * len(held_out))
    majority = [wishes, 2 * wishes / (1 + wishes)]  # accuracy, and f1 of the label that is always answered
    assert results["baselines"]["majority"] == pytest.approx(sum(majority) / 2)
    stored = list(tmp_path.glob(f"runs/mlflow-artifacts/**/evaluation/{TRAINED_ON}"))
    assert {path.read_bytes() for path in stored} == {(folder / TRAINED_ON).read_bytes() for folder in (first, second)}
