"""A version, and what was stored with it, fetched from the registry and checked."""

import os
import sys
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.artifacts.folders import read_manifest
from components.errors import UserError
from components.registry.versions import check_uri

EVALUATION = "evaluation"
"""Folder of a version's run that holds what components.evaluate wrote."""

if not sys.stderr.isatty():
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a line for every file


def find_version(client: mlflow.MlflowClient, model_uri: str) -> ModelVersion:
    """The version that models:/NAME/VERSION or models:/NAME@ALIAS names; UserError where there is none."""
    name, version, alias = check_uri(model_uri)
    try:
        if alias:
            return client.get_model_version_by_alias(name, alias)
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        if "API request to" in str(error):  # the server is away
            raise
        raise UserError(f"the registry at {mlflow.get_registry_uri()} has no {model_uri}") from None


def fetch_evaluation(client: mlflow.MlflowClient, name: str, version: str, folder: Path) -> Path:
    """The evaluation that was stored with a version, every file checked.

    Raises:
        UserError: it has none, or one that is damaged.
    """
    run_id = client.get_model_version(name, version).run_id
    try:
        there = client.list_artifacts(run_id, EVALUATION) if run_id else []
    except MlflowException:  # the run was deleted
        there = []
    if not there:
        raise UserError(f"version {version} of {name} has no evaluation in its run")
    return fetch(f"runs:/{run_id}/{EVALUATION}", folder, "evaluate")


def fetch(uri: str, folder: Path, stage: str) -> Path:
    """Download what `stage` wrote, and check every file."""
    folder.mkdir(parents=True)
    fetched = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    read_manifest(fetched, stage)
    return fetched
