"""A stage as a step of a pipeline: its exit code, its run in MLflow, and what the KFP artifact says of its output."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.folders import Artifact, Manifest, artifact_metadata
from components.artifacts.provenance import Iteration, Tracking
from components.errors import exit_codes
from components.image import take_mounted_settings

if TYPE_CHECKING:
    from components.tracking.runs import StageRun


@contextmanager
def begun(beside: str | Path | None = None) -> Iterator[None]:
    """The settings that the namespace mounts are there, and what goes wrong becomes one line and an exit code.

    Args:
        beside: An output of the step; the error record is left in the same folder.
    """
    take_mounted_settings()
    with exit_codes(beside=beside):
        yield


def iteration_of(text: str) -> Iteration | None:
    """The pipeline's loop iteration that a stage is a part of; None outside a loop.

    Args:
        text: What is the iteration's own, as "task=rte, seed=0", by which it is called "rte, seed 0". A stage leaves it in the
            metadata of its output for the next: one more input of a step would weigh on each iteration.
    """
    if not text:
        return None
    params = dict(each.split("=", 1) for each in text.split(", "))
    return Iteration(", ".join(f"{name} {it}" if it.isdecimal() else it for name, it in params.items()), params)


def recorded(
    artifact: Artifact,
    tracking: Tracking,
    output: Any,
    make: Callable[["StageRun", Any], Manifest],
    meanwhile: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    iteration: str = "",
    run_name: str = "",
) -> Manifest:
    """What is there already, or what `make` makes in a run of MLflow.

    Args:
        output: The KFP artifact, whose metadata tell of it.
        make: Gets the run, and what `meanwhile` yields.
        meanwhile: Begun before MLflow is imported, which takes seconds.
        iteration: As iteration_of takes it.
        run_name: The stage's by default.
    """
    if iteration:
        output.metadata["iteration"] = iteration
    if manifest := artifact.cached():
        output.metadata["cached"] = True
    else:
        with meanwhile() as begun_before:
            from components.tracking.runs import stage_run

            with stage_run(run_name or artifact.stage, tracking, iteration=iteration_of(iteration)) as run:
                manifest = make(run, begun_before)
                run.log_manifest(manifest)
                output.metadata["mlflow_run_id"] = run.run_id
    output.metadata.update(artifact_metadata(manifest))
    return manifest
