"""A training step on a cluster: the job's pods read the data from the artifact's own place and put the model into its own."""

import contextlib
import json
import os
from collections.abc import Mapping

from components.errors import FailedError, StageError, UserError
from components.image import TRAIN_IMAGE
from components.launch import metrics
from components.launch.api import Api, connect
from components.launch.cluster import owner, run_to_end
from components.launch.job import RUN_LABEL, TASK_LABEL, Job, job_name, label_value
from components.launch.placement import Placement, Places
from components.launch.verdict import Limits
from components.parameters import JobKind
from components.storage import transfer


def run_job(arguments: Mapping[str, object], placement: Placement, kind: JobKind, places: Places) -> None:
    """Run the training job to its end, and have the model under its path here. The logs are kept whatever happens.

    Raises:
        UserError, TryAgainError, FailedError: why it failed. What will not go away by trying again is remembered beside the
            output, so that Kubeflow's next try of the step costs nothing.
    """
    run_id, task_id = os.environ.get("PIPELINE_RUN_ID", ""), os.environ.get("PIPELINE_TASK_ID", "")
    name = job_name(run_id, task_id)
    data, output = exchange(placement, places, name)
    end = f"{output}.error.json"
    if said := transfer.read_text(end):
        earlier = json.loads(said)
        raise (UserError if earlier["exit_code"] == UserError.exit_code else FailedError)(earlier["message"])
    api = connect()
    job = build_job(arguments, placement, name, data, output, run_id, task_id, api)
    limits = Limits(
        start=60 * placement.start_timeout_minutes,
        job=60 * placement.job_timeout_minutes,
        max_restarts=placement.max_restarts,
    )
    logs, logs_uri = places.logs
    logs.mkdir(parents=True, exist_ok=True)
    try:
        with metrics.heard(output, places.trained[0]):
            run_to_end(api, job, kind, limits, logs)
    except BaseException as error:
        with contextlib.suppress(StageError):
            if transfer.is_remote(logs_uri):  # Kubeflow does not keep the outputs of a step that failed
                transfer.store(logs, logs_uri)
            if isinstance(error, UserError | FailedError):
                transfer.write_text(end, json.dumps({"exit_code": error.exit_code, "message": str(error)}))
        raise
    transfer.fetch(output, places.trained[0])
    if placement.job_storage:
        transfer.remove(output.rpartition("/")[0])


def exchange(placement: Placement, places: Places, name: str) -> tuple[str, str]:
    """Where the job's pods find the data, and where they put the model."""
    path, data = places.dataset
    output = places.trained[1]
    if folder := placement.job_storage:
        transfer.store(path, f"{folder}/{name}/data")
        return f"{folder}/{name}/data", f"{folder}/{name}/model"
    for uri in (data, output):
        if not transfer.is_remote(uri):
            raise UserError(
                f"the training job's pods cannot reach {uri}: use an object store as pipeline root, or give job_storage"
            )
    return data, output


def build_job(
    arguments: Mapping[str, object],
    placement: Placement,
    name: str,
    data: str,
    output: str,
    run_id: str,
    task_id: str,
    api: Api,
) -> Job:
    """What the parameters and the step's own settings say of the job."""
    asked = placement.task_config
    resources = (asked and asked.resources) or {}
    num_gpus = placement.num_gpus_per_worker or int(resources.get("limits", {}).get("nvidia.com/gpu", 0))
    flags = [
        f"--{flag.replace('_', '-')}={value}" for flag, value in arguments.items() if flag not in ("data_dir", "output_dir")
    ]
    entry = ["python", "-m", "components.launch.node", f"--data-uri={data}", f"--output-uri={output}"]
    return Job(
        name=name,
        image=placement.train_image or os.environ.get("IMAGE") or TRAIN_IMAGE,
        command=[*entry, f"--checkpoint-uri={output}.checkpoint", "--", *flags],
        labels={
            "app.kubernetes.io/name": "adapt",
            "app.kubernetes.io/component": "train",
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
