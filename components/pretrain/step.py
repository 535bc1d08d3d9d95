"""components.pretrain as a step of a pipeline. It knows both the stage and how its ranks come to life."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import cli
from components.artifacts.folders import Manifest, read_manifest
from components.artifacts.names import TRAINING_LOG
from components.artifacts.provenance import Tracking
from components.launch.placement import Placement, Places
from components.launch.start import launched
from components.pretrain.settings import OF_TRAINING, Pretraining
from components.pretrain.stage import plan
from components.tracking.steps import begun, recorded
from components.train.settings import OF_METHODS

if TYPE_CHECKING:
    from components.tracking.runs import StageRun


def pretrain_step(settings: str, corpus: Any, pretrained: Any, logs: Any, task_config: Any) -> str:
    """Pre-train, on ranks that the step starts. Returns the name by which the other stages find the model."""
    with begun(pretrained.path):
        values = cli.read(settings, Pretraining, OF_TRAINING, Placement, Tracking, optional=OF_METHODS)
        placement, tracking = cli.pick(Placement, values), cli.pick(Tracking, values)
        own = {name: value for name, value in values.items() if name in cli.names_of(Pretraining, OF_TRAINING, OF_METHODS)}
        artifact, _, settled = plan(Path(corpus.path), Path(pretrained.path), own)
        places = Places(
            inputs={"corpus": (Path(corpus.path), corpus.uri)},
            output=(Path(pretrained.path), pretrained.uri),
            logs=(Path(logs.path), logs.uri),
        )

        def make(run: "StageRun", wait: Any) -> Manifest:
            with run.following(artifact.path, TRAINING_LOG):
                wait()
            return read_manifest(artifact.path, "pretrain")

        def start() -> Any:
            return launched("pretrain", cli.write(own), placement, places, task_config)

        recorded(artifact, tracking, pretrained, make, start)
        pretrained.framework = "pytorch"
        pretrained.metadata.update(method=settled.training.method)
        return str(artifact.place or pretrained.uri)
