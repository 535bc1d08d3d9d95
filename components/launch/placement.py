"""Where the ranks of a training run: the one choice between this machine and a cluster."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.launch import torchrun
from components.parameters import JobKind, Launcher, check_choice


@dataclass(frozen=True)
class Placement:
    """The pipeline's parameters of these names. task_config: what the step itself asks for, as KFP's dsl.TaskConfig has it."""

    launcher: str
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
    task_config: Any = None

    def __post_init__(self) -> None:
        check_choice("launcher", self.launcher, Launcher)

    @property
    def kind(self) -> JobKind | None:
        """The training job's; None for ranks on this machine."""
        if self.launcher == "torchrun" or (self.launcher == "auto" and "KUBERNETES_SERVICE_HOST" not in os.environ):
            return None
        return "trainjob" if self.launcher == "trainjob" else "pytorchjob"


@dataclass(frozen=True)
class Places:
    """An artifact's path here, and the URI by which others find it."""

    dataset: tuple[Path, str]
    trained: tuple[Path, str]
    logs: tuple[Path, str]


@contextmanager
def launched(arguments: Mapping[str, object], placement: Placement, places: Places) -> Iterator[Callable[[], None]]:
    """components.train on the ranks of `placement`, ended if the block ends before they do. Yields what waits for them.

    Args:
        arguments: The stage's, by name.

    Raises:
        UserError, TryAgainError, FailedError: why it failed.
    """
    if placement.kind is None:
        if placement.num_workers > 1:
            raise UserError(f"num_workers is {placement.num_workers}: torchrun here has one; give launcher=pytorchjob")
        with torchrun.launched(arguments, placement.num_processes) as wait:
            yield wait
        return
    from components.launch.remote import run_job  # the Kubernetes client takes its time to import

    yield partial(run_job, arguments, placement, placement.kind, places)
