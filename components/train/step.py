"""components.train as a step of a pipeline. The one place that knows both the stage and how its ranks come to life."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import cli
from components.artifacts.folders import Manifest, read_manifest
from components.artifacts.names import TRAINING_LOG
from components.artifacts.provenance import Tracking
from components.launch.placement import Placement, Places
from components.launch.start import launched
from components.tracking.steps import begun, recorded
from components.train.settings import OF_METHODS, Training
from components.train.stage import plan

if TYPE_CHECKING:
    from components.tracking.runs import StageRun


def train_step(settings: str, dataset: Any, trained: Any, logs: Any, task_config: Any, of_run: Mapping[str, Any]) -> None:
    """Train, on ranks that the step starts.

    Args:
        task_config: What the step itself asks for, as KFP's dsl.TaskConfig has it; it is meant for the ranks.
        of_run: In a loop, the settings that are this iteration's own, and `iteration`, as tracking.steps.iteration_of takes it.
    """
    with begun(trained.path):
        own_settings = {name: value for name, value in of_run.items() if name != "iteration"}
        values = cli.read(cli.with_changes(settings, own_settings), Training, Placement, Tracking, optional=OF_METHODS)
        placement, tracking = cli.pick(Placement, values), cli.pick(Tracking, values)
        own = {name: value for name, value in values.items() if name in cli.names_of(Training, OF_METHODS)}
        artifact, settled = plan(Path(dataset.path), Path(trained.path), own)
        places = Places(
            inputs={"data": (Path(dataset.path), dataset.uri)},
            output=(Path(trained.path), trained.uri),
            logs=(Path(logs.path), logs.uri),
        )

        def make(run: "StageRun", wait: Any) -> Manifest:
            with run.following(artifact.path, TRAINING_LOG):
                wait()
            return read_manifest(artifact.path, "train")

        def start() -> Any:
            return launched("train", cli.write(own), placement, places, task_config)

        recorded(artifact, tracking, trained, make, start, of_run.get("iteration", ""))
        trained.framework = "pytorch"
        trained.metadata.update(base_model=settled.training.model, method=settled.training.method)
