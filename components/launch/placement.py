"""Where the ranks of a stage run, and what they exchange with the step that launches them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError
from components.parameters import JobKind, Launcher, check_fields

Place = tuple[Path, str]
"""An artifact's path here, and the URI by which others find it."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The parameters of these names."""

    launcher: Launcher
    num_processes: int
    num_workers: int
    min_workers: int
    num_gpus_per_worker: int
    cpu_per_worker: str
    memory_per_worker: str
    shared_memory: str
    queue: str
    priority_class: str
    image_pull_secrets: list[str]
    training_runtime: str
    train_image: str
    job_storage: str
    start_timeout_minutes: float
    job_timeout_minutes: float
    max_restarts: int
    attempts: int
    attempt_pause_seconds: float

    def __post_init__(self) -> None:
        check_fields(self)
        if self.min_workers > self.num_workers:
            raise UserError(f"min_workers is {self.min_workers}, num_workers {self.num_workers}: give at most as many")
        if self.launcher == "torchrun" and self.num_workers > 1:
            raise UserError(f"num_workers is {self.num_workers}: torchrun has one; give launcher=pytorchjob")
        if self.launcher == "trainjob" and self.min_workers:
            raise UserError("min_workers needs launcher=pytorchjob: a TrainJob is not elastic (Trainer 2.2 took it out)")
        if self.launcher == "trainjob" and self.priority_class:
            raise UserError("priority_class needs launcher=pytorchjob: for a TrainJob set it in the runtime, or use a queue")

    @property
    def kind(self) -> JobKind | None:
        """The training job's; None for ranks on this machine."""
        if self.launcher == "torchrun" or (self.launcher == "auto" and "KUBERNETES_SERVICE_HOST" not in os.environ):
            return None
        return "trainjob" if self.launcher == "trainjob" else "pytorchjob"


@dataclass(frozen=True)
class Places:
    """inputs: by the name that the stage's option --NAME-dir has."""

    inputs: Mapping[str, Place]
    output: Place
    logs: Place
