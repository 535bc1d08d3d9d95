"""Which MLflow a process talks to, and where its runs and their files go: decided here, and nowhere else.

Left to itself MLflow makes an mlflow.db, and a folder mlruns beside it, wherever a process happens to stand.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from components import parameters
from components.errors import UserError
from components.storage.s3 import environment

if TYPE_CHECKING:
    import mlflow

STORE = "mlflow.db"
RUNS = Path("runs")
"""Where local runs keep it, unless they are told otherwise."""


def use_server(tracking_uri: str = "") -> None:
    """Talk to the server named, else to that of MLFLOW_TRACKING_URI (which mlflow.set_tracking_uri sets too), else to the file
    of the local runs in this folder.

    Raises:
        UserError: there is none of these.
    """
    if not tracking_uri and not os.environ.get("MLFLOW_TRACKING_URI"):
        local = RUNS / STORE
        if not local.is_file():
            mend = f"set MLFLOW_TRACKING_URI, or go to the folder that has {local}; in a pipeline, give tracking_uri=http://..."
            raise UserError(f"no MLflow server: {mend}")
        tracking_uri = sqlite_uri(local)
    if tracking_uri:
        import mlflow  # seconds

        mlflow.set_tracking_uri(tracking_uri)
    storage = environment()
    if {"AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"} & storage.keys():  # a store of one's own: MLflow has names of its own for it
        os.environ |= storage


def sqlite_uri(file: Path) -> str:
    return f"sqlite:///{file.resolve()}"


def own_experiment(asked: str = "") -> str | None:
    """The id of the experiment that a run outside pipelines goes to; None where MLflow's environment variables name another.

    Args:
        asked: Its name; empty takes that of the pipelines' runs.
    """
    import mlflow

    if not asked and (os.environ.get("MLFLOW_EXPERIMENT_ID") or os.environ.get("MLFLOW_EXPERIMENT_NAME")):
        return None
    return experiment_id(mlflow.MlflowClient(), asked or parameters.experiment)


def experiment_id(client: "mlflow.MlflowClient", experiment: str) -> str:
    """Of the experiment of that name, which is made where there is none."""
    import mlflow
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(experiment):
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(experiment, artifact_location=_artifact_location(mlflow.get_tracking_uri())))
    except MlflowException:  # another stage was faster
        if found := client.get_experiment_by_name(experiment):
            return str(found.experiment_id)
        raise


def _artifact_location(tracking_uri: str) -> str | None:
    """Beside an sqlite file, not in whatever folder a stage happens to run in; a server knows better."""
    path = tracking_uri.removeprefix("sqlite:///")
    return Path(path).resolve().with_name("mlflow-artifacts").as_uri() if path != tracking_uri else None
