"""A step on a cluster whose ranks are a job: its pods read the inputs from the artifacts' own places and put the output into
its own.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from components.artifacts.folders import FILE
from components.artifacts.provenance import is_remote
from components.errors import StageError, UserError
from components.image import TRAIN_IMAGE
from components.launch import relay
from components.launch.api import Api, connect
from components.launch.job import DIGEST, RUN_LABEL, STAGE_LABEL, TASK_LABEL, Job, job_name, label_value, manifest
from components.launch.jobs import owner
from components.launch.lifecycle import RankError, run_to_end
from components.launch.placement import Placement, Places
from components.launch.verdict import Limits
from components.parameters import JobKind
from components.storage import transfer


def run_job(stage: str, settings: str, placement: Placement, kind: JobKind, places: Places, task_config: Any = None) -> None:
    """Run the stage's job to its end, and have the output under its path here. The logs are kept whatever happens.

    Raises:
        UserError, TryAgainError, FailedError: why it failed. An error of the user that a rank found is remembered beside the
            output, with the job that found it, so that Kubeflow's next try of the step costs nothing.
    """
    run_id, task_id = os.environ.get("PIPELINE_RUN_ID", ""), task_id_of(places)
    name = job_name(stage, run_id, task_id)
    inputs, output = exchange(placement, places, name)
    api = connect()
    command = node_command(stage, settings, inputs, output, checkpoints_at(placement, output, run_id))
    job = build_job(stage, command, placement, name, run_id, task_id, task_config, api)
    end, digest = f"{output}.error.json", manifest(job, kind)["metadata"]["annotations"][DIGEST]
    if (text := transfer.read_text(end)) and (earlier := json.loads(text)).get("job") == digest:
        raise UserError(earlier["message"])
    limits = Limits(
        start=60 * placement.start_timeout_minutes,
        job=60 * placement.job_timeout_minutes,
        max_restarts=placement.max_restarts,
    )
    logs, logs_uri = places.logs
    logs.mkdir(parents=True, exist_ok=True)
    try:
        with relay.received(output, places.output[0]):
            run_to_end(api, job, kind, limits, logs, lambda: transfer.read_text(f"{output}/{FILE}") is not None)
    except BaseException as error:
        if is_remote(logs_uri):  # Kubeflow does not keep the outputs of a step that failed
            with contextlib.suppress(StageError):
                transfer.store(logs, logs_uri)
        if isinstance(error, RankError):
            with contextlib.suppress(StageError):
                transfer.write_text(end, json.dumps({"job": digest, "message": str(error)}))
        raise
    transfer.fetch(output, places.output[0])
    if placement.job_storage:
        transfer.remove(output.rpartition("/")[0])


def task_id_of(places: Places) -> str:
    """The same for every try of a step, since its output's URI is."""
    return hashlib.sha256(places.output[1].encode()).hexdigest()[:16]


def exchange(placement: Placement, places: Places, name: str) -> tuple[dict[str, str], str]:
    """Where the job's pods find the inputs, by name, and where they put the output."""
    if folder := placement.job_storage:
        inputs = {each: f"{folder}/{name}/{each}" for each in places.inputs}
        for each, uri in inputs.items():
            transfer.store(places.inputs[each][0], uri)
        return inputs, f"{folder}/{name}/output"
    inputs, output = {each: uri for each, (_, uri) in places.inputs.items()}, places.output[1]
    for uri in (*inputs.values(), output):
        if not is_remote(uri):
            raise UserError(
                f"the training job's pods cannot reach {uri}: use an object store as pipeline root, or give job_storage"
            )
    return inputs, output


def checkpoints_at(placement: Placement, output: str, run_id: str) -> str:
    """Where checkpoints of all runs are: one that was stopped and is sent again has another output, and goes on from them."""
    if placement.job_storage:
        return f"{placement.job_storage}/checkpoints"
    before, of_the_run, _ = output.partition(f"/{run_id}/")  # Kubeflow's are ROOT/PIPELINE/RUN/TASK/.../NAME
    return f"{before}/checkpoints" if run_id and of_the_run else f"{output}.checkpoints"


def node_command(stage: str, settings: str, inputs: Mapping[str, str], output: str, checkpoints: str) -> list[str]:
    """What every pod of the job runs."""
    entry = ["python", "-m", "components.launch.node", f"--stage={stage}", f"--settings={settings}"]
    given = [f"--inputs={name}={uri}" for name, uri in inputs.items()]
    return [*entry, *given, f"--output-uri={output}", f"--checkpoint-uri={checkpoints}"]


def build_job(
    stage: str,
    command: Sequence[str],
    placement: Placement,
    name: str,
    run_id: str,
    task_id: str,
    asked: Any,
    api: Api,
) -> Job:
    """What the parameters and the step itself say of the job; `asked`: what the step asks for, a dsl.TaskConfig."""
    resources = (asked and asked.resources) or {}
    num_gpus = placement.num_gpus_per_worker or int(resources.get("limits", {}).get("nvidia.com/gpu", 0))
    return Job(
        name=name,
        image=placement.train_image or os.environ.get("IMAGE") or TRAIN_IMAGE,
        command=command,
        labels={
            "app.kubernetes.io/name": "adapt",
            STAGE_LABEL: stage,
            RUN_LABEL: label_value(run_id),
            TASK_LABEL: label_value(task_id),
        },
        num_workers=placement.num_workers,
        min_workers=placement.min_workers,
        num_processes=num_gpus or placement.num_processes,
        num_gpus=num_gpus,
        cpu=placement.cpu_per_worker,
        memory=placement.memory_per_worker,
        shared_memory=placement.shared_memory,
        queue=placement.queue,
        priority_class=placement.priority_class,
        image_pull_secrets=placement.image_pull_secrets,
        meet_seconds=round(60 * placement.start_timeout_minutes),
        max_restarts=placement.max_restarts,
        runtime=placement.training_runtime,
        env=[
            *((asked and asked.env) or []),
            {"name": "PIPELINE_RUN_ID", "value": run_id},
            {"name": "PIPELINE_TASK_ID", "value": task_id},
        ],
        node_selector=(asked and asked.node_selector) or {},
        tolerations=(asked and asked.tolerations) or [],
        affinity=(asked and asked.affinity) or {},
        volumes=(asked and asked.volumes) or [],
        volume_mounts=(asked and asked.volume_mounts) or [],
        resources=resources,
        owner=owner(api, os.environ.get("KFP_POD_NAME", "")),
    )
