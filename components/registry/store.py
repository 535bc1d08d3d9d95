"""A model as MLflow keeps it: stored with signature, example and requirements, fetched again, checked, numbered."""

import importlib.metadata
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from components.artifacts.folders import read_manifest
from components.artifacts.names import EXAMPLES
from components.errors import TryAgainError, UserError
from components.registry.fetching import EVALUATION, fetch
from components.tasks.table import Task

REQUIREMENTS = ("mlflow", "torch", "transformers", "safetensors", "pandas", "numpy")
TOLERANCE = 1e-3  # between probabilities of the same model in batches padded otherwise
ATTEMPTS = 10


def version_of(client: mlflow.MlflowClient, name: str, digest: str) -> str:
    """The first version of this content; '' where there is none."""
    found = client.search_model_versions(f"name = '{name}' AND tags.`digest.registered` = '{digest}'")
    return str(min((int(version.version) for version in found), default=""))


def log_version(run_id: str, name: str, task: Task, model_dir: Path, evaluation_dir: Path, tags: dict[str, str]) -> str:
    """Store model and evaluation with the active run, and number them once they are seen to be what was stored.

    Raises:
        TryAgainError: they are not.  RuntimeError: they are, and the model answers otherwise than it was evaluated to.
    """
    examples = json.loads((evaluation_dir / EXAMPLES).read_text())
    info = mlflow.pyfunc.log_model(
        name="model",
        python_model=str(Path(__file__).with_name("serving.py")),
        artifacts={"model": str(model_dir)},
        signature=_signature(task),
        input_example=_model_input(task, examples["rows"]),
        pip_requirements=[f"{package}=={_version(package)}" for package in REQUIREMENTS],
        metadata={"task": task.name, "model_digest": tags["digest.model"]},
    )
    client = mlflow.MlflowClient()
    client.log_artifacts(run_id, str(evaluation_dir), EVALUATION)
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetch(f"runs:/{run_id}/{EVALUATION}", Path(folder) / "e", "evaluate")
            stored = Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=folder))
            read_manifest(stored / "artifacts" / model_dir.resolve().name, "train")
        except UserError as error:
            raise TryAgainError(f"what MLflow stored is not what was sent ({error}): nothing was registered") from None
        _check_answers(mlflow.pyfunc.load_model(str(stored)).predict(_model_input(task, examples["rows"])), examples)
    version = _number(info.model_uri, name, tags)
    if (first := version_of(client, name, tags["digest.registered"])) != version:  # somebody was as fast with the same
        client.delete_model_version(name, version)
    return first


def _number(model_uri: str, name: str, tags: dict[str, str]) -> str:
    """A new version's number. MLflow itself gives up where many ask for a number at the same moment."""
    for attempt in range(ATTEMPTS):
        try:
            return str(mlflow.register_model(model_uri, name, tags=tags).version)
        except MlflowException:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0, 0.2 * 2 ** min(attempt, 5)))
    raise AssertionError


def _signature(task: Task) -> ModelSignature:
    """Text in, label and scores out, as serving.py has them."""
    pair = len(task.text_columns) > 1
    inputs: list[Any] = [ColSpec("string", column if pair else None) for column in task.text_columns]
    labels: list[Any] = [] if task.is_regression else [ColSpec("string", "label")]
    probabilities = [ColSpec("double", f"probability_{label}") for label in task.label_names]
    return ModelSignature(Schema(inputs), Schema([*labels, ColSpec("double", "score"), *probabilities]))


def _model_input(task: Task, rows: list[dict[str, str]]) -> list[str] | pd.DataFrame:
    """Strings for one text column, a table for two."""
    if len(task.text_columns) == 1:
        return [row[task.text_columns[0]] for row in rows]
    return pd.DataFrame(rows)


def _check_answers(answers: pd.DataFrame, examples: dict[str, Any]) -> None:
    """Raise RuntimeError where what was stored does not answer as what was evaluated."""
    for text, answer, expected in zip(examples["rows"], answers.to_dict("records"), examples["answers"], strict=True):
        if answer.get("label") != expected.get("label") or abs(answer["score"] - expected["score"]) > TOLERANCE:
            raise RuntimeError(f"the stored model answers {answer} to {text}, the evaluated one {expected}")


def _version(package: str) -> str:
    return importlib.metadata.version(package).partition("+")[0]  # the same release on another processor
