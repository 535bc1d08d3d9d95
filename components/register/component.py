"""components.register as a KFP component."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Markdown, Model, Output

from components.image import TRAIN_IMAGE
from components.parameters import documented


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
@documented
def register(
    trained: Input[Model],
    evaluation: Input[Artifact],
    name: str,
    alias: str,
    champion_margin: float,
    champion_min_score: float,
    champion_min_robustness: float,
    auto_promote: bool,
    experiment: str,
    tracking_uri: str,
    pipeline_run_id: str,
    pipeline_task_id: str,
    card: Output[Markdown],
    model_uri: dsl.OutputPath(str),
    gate: dsl.OutputPath(str),
) -> str:
    """Register the model in MLflow and put it to the gate.

    The output is `promote` where it is to become champion, else `keep`; model_uri is what loads it, as models:/NAME/VERSION;
    gate is what the gate says.
    """
    import json
    from pathlib import Path

    from components.artifacts.names import METRICS
    from components.artifacts.provenance import set_run
    from components.errors import exit_codes
    from components.evaluate.stage import flat
    from components.register.stage import next_step, register
    from components.tracking import stage_run

    folder = Path(evaluation.path)
    set_run(pipeline_run_id, pipeline_task_id)
    with (
        exit_codes(beside=model_uri),
        stage_run(
            "register", pipeline_run_id=pipeline_run_id, experiment=experiment, tracking_uri=tracking_uri, last=True
        ) as run,
    ):
        registered = register(
            model_dir=Path(trained.path),
            evaluation_dir=folder,
            name=name,
            alias=alias,
            champion_margin=champion_margin,
            champion_min_score=champion_min_score,
            champion_min_robustness=champion_min_robustness,
            auto_promote=False,  # a step of its own, in the branch that the pipeline's graph shows
        )
        if evaluation.metadata.get("cached"):
            run.log_metrics(flat(json.loads((folder / METRICS).read_text())))
        Path(card.path).write_text(registered["card"])
        Path(model_uri).write_text(registered["model_uri"])
        Path(gate).write_text(str(registered["decision"]))
        card.metadata.update(model_uri=registered["model_uri"], gate=str(registered["decision"]), mlflow_run_id=run.run_id)
        return next_step(registered, auto_promote)
