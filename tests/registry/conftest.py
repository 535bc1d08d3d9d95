"""Evaluations that differ from a real one in a known way."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts.folders import Artifact, read_manifest
from components.registry.facing import task_of
from components.tasks.metrics import measure, score

Variant = Callable[..., Path]


@pytest.fixture
def variant(tmp_path: Path, evaluated: Callable[[str], Path]) -> Variant:
    """(right, **changes of metrics.json) -> the evaluation of sst2's model, as if the first `right` of its rows were right.

    other_rows: as if they were not those of the others.  trained_on: as if it had been trained on the last so many of them.
    """

    def make(right: int, other_rows: bool = False, trained_on: int = 0, **changes: Any) -> Path:
        source = evaluated("sst2")
        manifest = read_manifest(source, "evaluate")
        target = tmp_path / f"evaluation-{right}-{len(list(tmp_path.iterdir()))}"
        with Artifact(target, "evaluate", {}, manifest["inputs"], manifest["origins"]).building() as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
            table = pq.read_table(folder / "predictions.parquet")
            labels = table["label"].to_numpy()
            predictions = np.where(np.arange(len(labels)) < right, labels, 1 - labels)
            column = table.schema.get_field_index("prediction")
            pq.write_table(table.set_column(column, "prediction", pa.array(predictions)), folder / "predictions.parquet")
            results = json.loads((folder / "metrics.json").read_text())
            for split in results["splits"].values():
                split["metrics"] = measure(task_of(results), labels, predictions)
                if other_rows:
                    split["digest"] = "of other rows"
            results["score"] = score(next(iter(results["splits"].values()))["metrics"])
            results["baselines"] = {"majority": 0.5}
            if trained_on:
                digests = np.sort(table["text_digest"].to_numpy()[-trained_on:])
                pq.write_table(pa.table({"text_digest": digests}), folder / "trained_on.parquet")
            (folder / "metrics.json").write_text(json.dumps({**results, **changes}))
        return target

    return make
