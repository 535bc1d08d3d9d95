"""components.clean_up as a KFP component: the exit handler of the pipelines that are compiled for a cluster."""

from kfp import dsl

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def clean_up(experiment: str, tracking_uri: str, pipeline_run_id: str):
    """Leave no training job behind, and no run in MLflow that seems to go on."""
    from components.clean_up.stage import clean_up
    from components.errors import exit_codes

    with exit_codes():
        clean_up(pipeline_run_id=pipeline_run_id, experiment=experiment, tracking_uri=tracking_uri)
