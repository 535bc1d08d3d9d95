"""components.promote as a step of a pipeline."""

from pathlib import Path

from components import cli
from components.artifacts.provenance import Tracking
from components.promote.stage import promote
from components.registry.criteria import Criteria
from components.tracking.steps import begun


def promote_step(settings: str, model_uri: str, reason: str) -> None:
    """reason: a file to write."""
    with begun(reason):
        criteria, tracking = cli.parts(settings, Criteria, Tracking)
        from components.tracking.runs import stage_run

        with stage_run("promote", tracking, last=True, registered=model_uri):
            Path(reason).write_text(promote(model_uri=model_uri, **vars(criteria)))
