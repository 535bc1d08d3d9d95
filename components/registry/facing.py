"""Two versions face the same rows: those that the challenger was validated on, without what either was trained on.

Where both were validated on the same rows, their answers are there already. Where the rows are others, as after the data grew,
the rival is fetched from MLflow and asked now; its answers stay with the challenger's run, so that it is asked once.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from components.artifacts.folders import read_manifest
from components.artifacts.names import METRICS, PREDICTIONS, TEXT_DIGEST, TEXTS, TRAINED_ON
from components.errors import UserError
from components.registry.comparison import Answers
from components.tasks.table import Task

RIVALS = "rivals"
"""Folder of a version's run: what other versions answer to its rows, VERSION.parquet."""
ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Faced:
    """Answers to the rows that count, and to all; left_out: who was trained on it -> rows left out for that.

    scored_anew: the rival had been validated on other rows.
    """

    challenger: Answers
    rival: Answers
    all_challenger: Answers
    all_rival: Answers
    left_out: Mapping[str, int]
    scored_anew: bool

    @property
    def rows(self) -> int:
        return sum(len(labels) for labels, _ in self.challenger.values())


def face(client: mlflow.MlflowClient, name: str, challenger: Path, version: str, rival: Path, rival_version: str) -> Faced:
    """Bring the evaluations of two versions, fetched to two folders, down to the same rows.

    Raises:
        UserError: they cannot be compared; the message says why.
    """
    ours, theirs = (json.loads((folder / METRICS).read_text()) for folder in (challenger, rival))
    for what in ("labels", "text_columns"):  # the columns were not always kept
        if what in theirs and theirs[what] != ours[what]:
            raise UserError(f"its {what.replace('_', ' ')} are {theirs[what]}, these are {ours[what]}")
    if "generated" in theirs and bool(theirs["generated"]) != bool(ours["generated"]):
        raise UserError(f"{'it' if theirs['generated'] else 'this one'} is of generated data, and the other is not")
    digests = [{split: result["digest"] for split, result in results["splits"].items()} for results in (ours, theirs)]
    table = pq.read_table(challenger / PREDICTIONS)
    if anew := digests[0] != digests[1]:
        if TEXTS not in table.column_names or not (rival / TRAINED_ON).is_file():
            raise UserError("it was validated on other rows, and stored before rows had digests")
        answers = _answers_of(client, name, version, challenger, table, rival_version, rival, task_of(ours))
    else:
        answers = _predictions(pq.read_table(rival / PREDICTIONS))
    left_out, kept = {}, np.ones(len(table), bool)
    for who, folder in ((f"version {rival_version}", rival), ("this one", challenger)):
        if TEXT_DIGEST in table.column_names and (folder / TRAINED_ON).is_file():
            seen = np.isin(table[TEXT_DIGEST].to_numpy(), pq.read_table(folder / TRAINED_ON)[TEXT_DIGEST].to_numpy())
            left_out[who] = int((kept & seen).sum())
            kept &= ~seen
    splits, labels, predictions = (table[column] for column in ("split", "label", "prediction"))
    whole = np.ones(len(table), bool)
    mine, its, all_mine, all_its = (
        _split_up(splits, labels, each, rows) for rows in (kept, whole) for each in (predictions.to_numpy(), answers)
    )
    return Faced(mine, its, all_mine, all_its, left_out, anew)


def task_of(results: dict[str, Any]) -> Task:
    """What metrics.json says of its task: enough to measure it again."""
    metrics = next(iter(results["splits"].values()))["metrics"]
    return Task(results["task"], tuple(results.get("text_columns", ())), tuple(results["labels"]), tuple(metrics))


def _predictions(predicted: pa.Table) -> np.ndarray:
    answers: np.ndarray = predicted["prediction"].to_numpy()
    return answers


def _split_up(splits: pa.ChunkedArray, labels: pa.ChunkedArray, answers: np.ndarray, kept: np.ndarray) -> Answers:
    names = splits.cast(pa.string())
    expected = labels.to_numpy()
    parts = {}
    for split in names.unique().to_pylist():
        there = pc.equal(names, split).to_numpy() & kept
        if there.any():
            parts[split] = expected[there], answers[there]
    return parts


def _answers_of(
    client: mlflow.MlflowClient,
    name: str,
    version: str,
    challenger: Path,
    rows: pa.Table,
    rival_version: str,
    rival: Path,
    task: Task,
) -> np.ndarray:
    """(rows,) what the rival answers to the challenger's rows: as it was kept with the challenger's run, or asked now."""
    digests = {"rows": read_manifest(challenger, "evaluate")["digest"], "rival": read_manifest(rival, "evaluate")["digest"]}
    known = {key.encode(): digest.encode() for key, digest in digests.items()}
    run_id, file = str(client.get_model_version(name, version).run_id), f"{rival_version}.parquet"
    with tempfile.TemporaryDirectory() as scratch:
        if any(it.path == f"{RIVALS}/{file}" for it in client.list_artifacts(run_id, RIVALS)):
            kept = pq.read_table(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{RIVALS}/{file}", dst_path=scratch))
            if {key: (kept.schema.metadata or {}).get(key) for key in known} == known and len(kept) == len(rows):
                return _predictions(kept)
        answers = _ask(f"models:/{name}/{rival_version}", rows[TEXTS], task, Path(scratch))
        pq.write_table(pa.table({"prediction": answers}).replace_schema_metadata(known), Path(scratch) / file)
        client.log_artifact(run_id, str(Path(scratch) / file), RIVALS)
    return answers


def _ask(model_uri: str, texts: pa.ChunkedArray, task: Task, scratch: Path) -> np.ndarray:
    """(rows,) class numbers or scores, of a registered model that answers raw text.  texts: a list for each row.

    Raises:
        UserError: its files are gone, or cannot be loaded.
    """
    import pandas as pd

    try:
        model = mlflow.pyfunc.load_model(mlflow.artifacts.download_artifacts(model_uri, dst_path=str(scratch)))
    except (MlflowException, OSError, ImportError, ValueError) as error:  # gone, damaged, or of libraries of before
        if "API request to" in str(error):  # the server is away
            raise
        raise UserError(f"its model cannot be asked: {' '.join(str(error).split())[:200]}") from None
    numbers = {label: number for number, label in enumerate(task.label_names)}
    answers: list[float] = []
    with tqdm(total=len(texts), desc=f"ask {model_uri}", unit=" rows", disable=None) as bar:
        for start in range(0, len(texts), ROWS_AT_ONCE):
            some = texts.slice(start, ROWS_AT_ONCE).to_pylist()
            given = (
                pd.DataFrame(some, columns=list(task.text_columns)) if len(task.text_columns) > 1 else [it for (it,) in some]
            )
            answered = model.predict(given)
            answers += answered["score"].tolist() if task.is_regression else [numbers[it] for it in answered["label"]]
            bar.update(len(some))
    return np.array(answers, np.float32 if task.is_regression else np.int64)
