"""However a pipeline run ends, none of its training jobs goes on, and its run in MLflow does not say that it does."""

from typing import Any

from components import cli
from components.artifacts.provenance import Tracking


@cli.taking(Tracking)
def clean_up(*, pipeline_run_id: str, **given: Any) -> None:
    """Delete the training jobs of a pipeline run, and end its run in MLflow if that is still open. Twice is as good as once.

    Raises:
        UserError: no MLflow server is named, or the jobs may not be deleted.  TryAgainError: a server is away.
    """
    from components.launch.jobs import delete_run  # these two take a while to import
    from components.tracking.runs import end_pipeline_run

    try:
        delete_run(pipeline_run_id)
    finally:  # one of the two may be away, and the other there
        end_pipeline_run(pipeline_run_id, cli.pick(Tracking, given))
