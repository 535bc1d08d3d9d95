"""The one choice between ranks on this machine and a job on a cluster."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

from components.errors import NeverStartedError, TryAgainError, UserError
from components.launch import torchrun
from components.launch.placement import Placement, Places


@contextmanager
def launched(
    stage: str, settings: str, placement: Placement, places: Places, task_config: Any = None
) -> Iterator[Callable[[], None]]:
    """`python -m components.STAGE --settings ...` on the ranks of `placement`, ended if the block ends before they do.

    What failed and may work later is tried again, here and not by Kubeflow, whose stock settings try nothing again that has
    an exit code. Training goes on from its last checkpoint.

    Args:
        settings: The stage's.
        task_config: What the step itself asks for, as KFP's dsl.TaskConfig has it.

    Yields:
        What waits for the ranks.

    Raises:
        UserError, TryAgainError, FailedError: why it failed.
    """
    with ExitStack() as lives:
        waits = [lives.enter_context(_life(stage, settings, placement, places, task_config))]

        def wait() -> None:
            for attempt in range(1, placement.attempts + 1):
                if not waits:
                    waits.append(lives.enter_context(_life(stage, settings, placement, places, task_config)))
                try:
                    waits.pop()()
                    return
                except NeverStartedError:  # it has waited for as long as it may
                    raise
                except TryAgainError as error:
                    if attempt == placement.attempts:
                        raise
                    pause = placement.attempt_pause_seconds * min(2 ** (attempt - 1), LONGEST)
                    print(f"{stage}: {error}; attempt {attempt + 1} of {placement.attempts} in {pause:.0f} s", flush=True)
                    time.sleep(pause)

        yield wait


LONGEST = 16
"""The longest pause between two attempts, in first ones."""


def _life(
    stage: str, settings: str, placement: Placement, places: Places, task_config: Any
) -> AbstractContextManager[Callable[[], None]]:
    """One attempt."""
    if placement.kind is None:
        if placement.num_workers > 1:
            raise UserError(f"num_workers is {placement.num_workers}: torchrun here has one; give launcher=pytorchjob")
        folders = {f"{name}_dir": path for name, (path, _) in places.inputs.items()} | {"output_dir": places.output[0]}
        return torchrun.launched(stage, {"settings": settings, **folders}, placement.num_processes)
    from components.launch.remote import run_job  # the Kubernetes client takes its time to import

    return nullcontext(partial(run_job, stage, settings, placement, placement.kind, places, task_config))
