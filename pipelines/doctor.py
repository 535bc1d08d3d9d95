"""`components.doctor` from where it counts: in a pod of a pipeline, with its service account, its network and its settings."""

from typing import Any

from kfp import dsl

from components.doctor import component
from pipelines.forwarding import taking


@dsl.pipeline(name="doctor")
@taking(component.doctor)
def doctor(**given: Any) -> None:
    """Check what a pipeline run needs, from a pod. Fails where a check does, after all of them are told."""
    looked = component.doctor(**given)
    judged = component.verdict(failed=looked.outputs["Output"])
    for step in (looked, judged):
        step.set_caching_options(enable_caching=False)  # it is about now
