"""components.promote as a KFP component."""

from kfp import dsl

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def promote(
    model_uri: str,
    champion_margin: float,
    champion_min_score: float,
    champion_min_robustness: float,
    experiment: str,
    tracking_uri: str,
    pipeline_run_id: str,
    pipeline_task_id: str,
    reason: dsl.OutputPath(str),
):
    """Make the registered model @champion, if it still passes the gate. The output says why it did."""
    from pathlib import Path

    from components.artifacts.provenance import set_run
    from components.errors import exit_codes
    from components.promote.stage import promote
    from components.tracking import stage_run

    set_run(pipeline_run_id, pipeline_task_id)
    with (
        exit_codes(beside=reason),
        stage_run("promote", pipeline_run_id=pipeline_run_id, experiment=experiment, tracking_uri=tracking_uri, last=True),
    ):
        said = promote(
            model_uri=model_uri,
            champion_margin=champion_margin,
            champion_min_score=champion_min_score,
            champion_min_robustness=champion_min_robustness,
        )
        Path(reason).write_text(said)
