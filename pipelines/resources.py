"""What each step of a compiled pipeline asks of the cluster.

Compiled in: as parameters they would be inputs of every step, and weigh on each iteration of a suite
(benchmarks/workflow_size.py).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, TaskConfigPassthroughType

from components.errors import UserError

QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Asked:
    """Quantities as Kubernetes writes them. gpus: whole ones, request and limit at once."""

    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str
    gpus: str = "0"


LIGHT = Asked("100m", "2", "512Mi", "1Gi")
OF_LITTLE = (
    "resolve",
    "resolve-pretraining",
    "runs",
    "suite",
    "suite-of-runs",
    "clean-up",
    "plan-parts",
    "merge-parts",
    "doctor",
    "verdict",
)
DEFAULTS: Mapping[str, Asked] = {
    **dict.fromkeys(OF_LITTLE, LIGHT),
    **dict.fromkeys(("train", "pretrain"), Asked("100m", "8", "512Mi", "16Gi")),
    **dict.fromkeys(("tokenize", "tokenize-part", "corpus"), Asked("500m", "4", "1Gi", "4Gi")),
    **dict.fromkeys(("evaluate", "register", "promote"), Asked("500m", "4", "2Gi", "4Gi")),
}
"""Step -> about twice what it was measured to take with MiniLM (docs/cluster.md).

Train's requests are of the step that starts the job and waits; a job's ranks have cpu_per_worker and memory_per_worker. Its
limits leave room for ranks in the step itself (launcher=torchrun).
"""


def asked(changes: Sequence[str] = ()) -> dict[str, Asked]:
    """The defaults with changes, each of the form evaluate.memory_limit=8Gi.

    Raises:
        UserError: no such step or resource, or no quantity.
    """
    made = dict(DEFAULTS)
    names = [field.name for field in fields(Asked)]
    for change in changes:
        what, _, value = change.partition("=")
        step, _, name = what.partition(".")
        if step not in made or name not in names:
            some = f"STEP one of {', '.join(sorted(made))}; RESOURCE one of {', '.join(names)}"
            raise UserError(f"--resources {change!r}: give STEP.RESOURCE=QUANTITY, {some}")
        if not QUANTITY.fullmatch(value) or (name == "gpus" and not value.isdecimal()):
            raise UserError(f"--resources {change!r}: {value!r} is no quantity, as 500m, 2, 4Gi, or a whole number of GPUs")
        made[step] = replace(made[step], **{name: value})
    return made


def set_resources(spec: PipelineSpec, of_steps: Mapping[str, Asked]) -> None:
    """Of every step that is named, train's too, which by itself would hand them on to its ranks: here those have parameters."""
    for component in spec.components.values():
        handed_on = component.task_config_passthroughs
        kept = [it for it in handed_on if it.field != TaskConfigPassthroughType.TaskConfigPassthroughTypeEnum.RESOURCES]
        if len(kept) < len(handed_on):
            component.ClearField("task_config_passthroughs")
            component.task_config_passthroughs.extend(kept)
    for name, executor in spec.deployment_spec["executors"].items():
        if wanted := of_steps.get(name.removeprefix("exec-")):
            given = asdict(wanted)
            gpus = given.pop("gpus")
            resources = executor["container"].get_or_create_struct("resources")
            for resource, quantity in given.items():
                kind, side = resource.split("_")
                resources[f"resource{kind.title()}{side.title()}"] = quantity
            if int(gpus):
                resources.get_or_create_struct("accelerator").update({"resourceType": GPU, "resourceCount": gpus})
