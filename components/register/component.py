"""components.register as a KFP component."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Model

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def register(
    trained: Input[Model],
    evaluation: Input[Artifact],
    name: str,
    alias: str,
    experiment: str,
    tracking_uri: str,
    pipeline_run_id: str,
    model_uri: dsl.OutputPath(str),
):
    """Register the model in MLflow. The output is the URI that loads it, as models:/NAME/VERSION."""
    import json
    from pathlib import Path

    from components.errors import exit_codes
    from components.evaluate.stage import METRICS, flat
    from components.register.stage import register
    from components.tracking import stage_run

    folder = Path(evaluation.path)
    with (
        exit_codes(beside=model_uri),
        stage_run(
            "register", pipeline_run_id=pipeline_run_id, experiment=experiment, tracking_uri=tracking_uri, last=True
        ) as run,
    ):
        registered = register(model_dir=Path(trained.path), evaluation_dir=folder, name=name, alias=alias)
        if evaluation.metadata.get("cached"):
            run.log_metrics(flat(json.loads((folder / METRICS).read_text())))
        Path(model_uri).write_text(registered["model_uri"])
