"""`components.doctor` from where it counts: in a pod of a pipeline, with its service account, its network and its settings."""

from kfp import dsl

from components import parameters
from components.doctor import component
from components.parameters import documented


@dsl.pipeline(name="doctor")
@documented
def doctor(
    kind: str = parameters.kind,
    train_image: str = parameters.train_image,
    uri: str = parameters.uri,
    tracking_uri: str = parameters.tracking_uri,
    num_workers: int = parameters.num_workers,
    num_gpus_per_worker: int = parameters.num_gpus_per_worker,
    cpu_per_worker: str = parameters.cpu_per_worker,
    memory_per_worker: str = parameters.memory_per_worker,
    rendezvous: bool = parameters.rendezvous,
) -> None:
    """Check what a pipeline run needs, from a pod. Fails where a check does, after all of them are told."""
    looked = component.doctor(
        kind=kind,
        train_image=train_image,
        uri=uri,
        tracking_uri=tracking_uri,
        num_workers=num_workers,
        num_gpus_per_worker=num_gpus_per_worker,
        cpu_per_worker=cpu_per_worker,
        memory_per_worker=memory_per_worker,
        rendezvous=rendezvous,
    )
    judged = component.verdict(failed=looked.outputs["Output"])
    for step in (looked, judged):
        step.set_caching_options(enable_caching=False)  # it is about now
