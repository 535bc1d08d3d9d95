"""However a pipeline run ends, none of its training jobs goes on, and its run in MLflow does not say that it does."""

from typing import Any

from components import cli, parameters
from components.artifacts.provenance import Tracking
from components.errors import StageError, UserError

OLD = 600.0
"""Seconds since its beginning after which a run may be taken for abandoned: Kubeflow is slow to say how one stands."""


@cli.taking(Tracking)
def clean_up(
    *,
    pipeline_run_id: str = parameters.pipeline_run_id,
    checkpoints: str = parameters.checkpoints,
    older_than_days: float = parameters.older_than_days,
    **given: Any,
) -> None:
    """Delete the training jobs of a pipeline run, and end its run in MLflow if that is still open. Twice is as good as once.

    With a folder of checkpoints, those that nobody has gone on from for long are deleted too, or alone.

    Raises:
        UserError: neither a run nor a folder is named, no MLflow server, or the jobs may not be deleted.
        TryAgainError: a server is away.
    """
    parameters.check("older_than_days", older_than_days)
    if not (pipeline_run_id or checkpoints):
        raise UserError("nothing to clean up: give --pipeline-run-id or --checkpoints")
    if checkpoints:
        from components.launch.checkpoints import sweep

        for name in sweep(checkpoints, 86_400 * older_than_days):
            print(f"clean_up: {checkpoints.rstrip('/')}/{name} is deleted", flush=True)
    if not pipeline_run_id:
        return

    from components.launch.jobs import delete_run  # these two take a while to import
    from components.tracking.runs import end_pipeline_run

    try:
        delete_run(pipeline_run_id)
    finally:  # one of the two may be away, and the other there
        end_pipeline_run(pipeline_run_id, cli.pick(Tracking, given))


def end_abandoned(tracking: Tracking) -> None:
    """End what earlier runs of the experiment, in this namespace, have left: jobs, and runs in MLflow that seem to go on.

    For the first step: of a run that is terminated Kubeflow may leave out the last one, and a launcher may be killed. Only of
    runs that Kubeflow is done with; what cannot be ended now is said, and fails nothing.
    """
    from components.launch.api import place
    from components.launch.jobs import is_over
    from components.tracking.runs import left_open

    if not (here := place()):
        return
    try:
        for run_id in filter(is_over, left_open(tracking, here, OLD)):
            clean_up(pipeline_run_id=run_id, **vars(tracking))
    except StageError as error:
        print(f"clean_up: what earlier runs have left stays for now: {error}", flush=True)
