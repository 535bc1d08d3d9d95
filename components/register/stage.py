"""A trained, evaluated model becomes a version in the MLflow registry that answers raw text."""

import contextlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import parameters
from components.artifacts import Manifest, code_digest, combined_digest, read_manifest
from components.errors import UserError
from components.evaluate.stage import METRICS
from components.parameters import documented
from components.tasks import Task
from components.tokenize.stage import EXAMPLES

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

REQUIREMENTS = ("mlflow", "torch", "transformers", "safetensors", "pandas", "numpy")
TOLERANCE = 1e-3  # between probabilities of the same model in batches padded otherwise


@documented
def register(
    *, model_dir: Path, evaluation_dir: Path, name: str = parameters.name, alias: str = parameters.alias
) -> dict[str, str]:
    """Register a model in MLflow, with signature, input example (raw text), metrics, tags and alias.

    What was stored is loaded again and must answer the evaluation's examples as the evaluation did: only then is there a
    version. Where there is a version of the same content already, that one is given the alias. Uses the active MLflow run, else
    opens one. Returns name, version, alias, model_uri and run_id.
    """
    model, evaluation = read_manifest(model_dir, "train"), read_manifest(evaluation_dir, "evaluate")
    if evaluation["inputs"]["model"] != model["digest"]:
        raise UserError(f"{evaluation_dir} is the evaluation of another model than {model_dir}: evaluate it first")
    task = Task.read(model_dir)
    name = name or f"glue-{task.name}"
    if not alias or set(name) & set("/:%'\""):
        raise UserError(f"name '{name}', alias '{alias}': give both, and a name without / : % and quotes")

    # Seconds to import: `--help` and the checks above need not wait.
    import mlflow

    if not sys.stderr.isatty():
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    results = json.loads((evaluation_dir / METRICS).read_text())
    tags = _tags(task, model, evaluation, results)
    client = mlflow.MlflowClient()
    active = mlflow.active_run()
    with contextlib.nullcontext(active) if active else mlflow.start_run(run_name="register") as run:
        there = client.search_model_versions(f"name = '{name}' AND tags.`digest.registered` = '{tags['digest.registered']}'")
        version = str(there[0].version) if there else _log_version(name, task, model_dir, evaluation_dir, tags)
        client.set_registered_model_alias(name, alias, version)
        run_id = run.info.run_id
    print(f"{'already there' if there else 'registered'}: {name} version {version} as models:/{name}@{alias}", flush=True)
    return {"name": name, "version": version, "alias": alias, "model_uri": f"models:/{name}/{version}", "run_id": run_id}


def _log_version(name: str, task: Task, model_dir: Path, evaluation_dir: Path, tags: dict[str, str]) -> str:
    """Store the model with the active run, and number it once it answers as it was evaluated to."""
    import mlflow

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
    _check_answers(mlflow.pyfunc.load_model(info.model_uri).predict(_model_input(task, examples["rows"])), examples)
    return str(mlflow.register_model(info.model_uri, name, tags=tags).version)


def _signature(task: Task) -> "ModelSignature":
    """Text in, label and scores out, as serving.py has them."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    pair = len(task.text_columns) > 1
    inputs: list[Any] = [ColSpec("string", column if pair else None) for column in task.text_columns]
    labels: list[Any] = [] if task.is_regression else [ColSpec("string", "label")]
    probabilities = [ColSpec("double", f"probability_{label}") for label in task.label_names]
    return ModelSignature(Schema(inputs), Schema([*labels, ColSpec("double", "score"), *probabilities]))


def _model_input(task: Task, rows: list[dict[str, str]]) -> "list[str] | pd.DataFrame":
    """Strings for one text column, a table for two."""
    import pandas as pd

    if len(task.text_columns) == 1:
        return [row[task.text_columns[0]] for row in rows]
    return pd.DataFrame(rows)


def _check_answers(answers: "pd.DataFrame", examples: dict[str, Any]) -> None:
    """Raise RuntimeError where what was stored does not answer as what was evaluated."""
    for text, answer, expected in zip(examples["rows"], answers.to_dict("records"), examples["answers"], strict=True):
        if answer.get("label") != expected.get("label") or abs(answer["score"] - expected["score"]) > TOLERANCE:
            raise RuntimeError(f"the stored model answers {answer} to {text}, the evaluated one {expected}")


def _tags(task: Task, model: Manifest, evaluation: Manifest, results: dict[str, Any]) -> dict[str, str]:
    """What the version says of itself: versions do not inherit the tags of their run."""
    return {
        "task": task.name,
        "base_model": model["parameters"]["model"],
        "method": model["parameters"]["method"],
        "score": f"{results['score']:.6f}",
        "labels": json.dumps(task.label_names),
        "digest.model": model["digest"],
        "digest.data": model["inputs"]["data"],
        "digest.evaluation": evaluation["digest"],
        "digest.code": model["code"],
        "digest.registered": combined_digest(
            {"model": model["digest"], "evaluation": evaluation["digest"], "code": code_digest()}
        ),
    }


def _version(package: str) -> str:
    return importlib.metadata.version(package).partition("+")[0]  # the same release on another processor
