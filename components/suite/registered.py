"""What pipeline runs have registered, for a table of them all."""

from collections.abc import Sequence
from pathlib import Path

import mlflow

from components.artifacts.provenance import Tracking
from components.errors import UserError
from components.registry.fetching import EVALUATION, fetch_evaluation, find_version
from components.tracking import tree
from components.tracking.runs import MODEL_URI, reachable
from components.tracking.server import use_server


def fetch_evaluations(pipeline_run_ids: Sequence[str], tracking: Tracking, folder: Path) -> dict[Path, str]:
    """Fetch the evaluation of each model that these pipeline runs registered.

    Returns:
        Its folder below `folder`, which is new -> where MLflow has it.

    Raises:
        UserError: no MLflow server is named, a run has registered nothing, or an evaluation is gone or damaged.
        TryAgainError: the server does not answer.
    """
    if not pipeline_run_ids:
        raise UserError("pipeline_run_ids is empty: give the ids of runs of adapt")
    use_server(tracking.tracking_uri)
    fetched: dict[Path, str] = {}
    with reachable():
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(tracking.experiment)
        for run_id in pipeline_run_ids:
            stages = tree.with_tags(client, experiment.experiment_id, {tree.PIPELINE_RUN_TAG: run_id}) if experiment else []
            uris = {stage.data.tags[MODEL_URI] for stage in stages if MODEL_URI in stage.data.tags}
            if not uris:
                raise UserError(f"pipeline run {run_id} has registered nothing in MLflow's experiment {tracking.experiment}")
            for uri in sorted(uris):
                version = find_version(client, uri)
                number = str(version.version)
                evaluation = fetch_evaluation(client, version.name, number, folder / run_id / number)
                fetched[evaluation] = f"runs:/{version.run_id}/{EVALUATION}"
    return fetched
