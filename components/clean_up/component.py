"""components.clean_up as a KFP component: the exit handler of the pipelines that are compiled for a cluster."""

from kfp import dsl

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def clean_up(experiment: str, overrides: dict):
    """Leave no training job behind, and no run in MLflow that seems to go on."""
    from components.artifacts.provenance import pipeline_run_id
    from components.clean_up.stage import clean_up
    from components.tracking.steps import begun

    with begun():
        clean_up(pipeline_run_id=pipeline_run_id(), experiment=experiment, tracking_uri=overrides.get("tracking_uri", ""))
