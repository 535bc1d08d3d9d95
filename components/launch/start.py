"""The one choice between ranks on this machine and a job on a cluster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from components.errors import UserError
from components.launch import torchrun
from components.launch.placement import Placement, Places


@contextmanager
def launched(
    stage: str, settings: str, placement: Placement, places: Places, task_config: Any = None
) -> Iterator[Callable[[], None]]:
    """`python -m components.STAGE --settings ...` on the ranks of `placement`, ended if the block ends before they do.

    Args:
        settings: The stage's.
        task_config: What the step itself asks for, as KFP's dsl.TaskConfig has it.

    Yields:
        What waits for the ranks.

    Raises:
        UserError, TryAgainError, FailedError: why it failed.
    """
    if placement.kind is None:
        if placement.num_workers > 1:
            raise UserError(f"num_workers is {placement.num_workers}: torchrun here has one; give launcher=pytorchjob")
        folders = {f"{name}_dir": path for name, (path, _) in places.inputs.items()} | {"output_dir": places.output[0]}
        with torchrun.launched(stage, {"settings": settings, **folders}, placement.num_processes) as wait:
            yield wait
        return
    from components.launch.remote import run_job  # the Kubernetes client takes its time to import

    yield partial(run_job, stage, settings, placement, placement.kind, places, task_config)
