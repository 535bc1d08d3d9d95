"""One description of a training job, and the manifests that say it to Kubernetes.

A PyTorchJob of one pod has a Master; one of many has elastic Workers and no Master: only a Master's Workers get the operator's
init container, which namespaces under Pod Security `restricted` refuse (and whose image air-gapped clusters lack). Its pods
meet through c10d at worker 0. Every pod passes `restricted`.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from components.errors import UserError
from components.launch.api import Object
from components.launch.namespace import CERTIFICATES, CERTIFICATES_DIR, MOUNTS, USER
from components.parameters import JobKind

STAGE_LABEL = "app.kubernetes.io/component"
RUN_LABEL = "adapt.pipeline/run"
TASK_LABEL = "adapt.pipeline/task"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
DIGEST = "adapt.pipeline/digest"

POD_NAME: dict[JobKind, str] = {"pytorchjob": "{}-worker-{}", "trainjob": "{}-node-0-{}-abcde"}
"""How operators name pods after their job: JobSet's also bear the replicated job's index, and five letters of their own."""
LONGEST_POD_NAME = 63
RUNTIME = "adapt-torch"
"""The TrainingRuntime of k8s/components/trainer: what pods of TrainJobs have in common. Others are the cluster's own."""
SHARED_MEMORY = "1Gi"
QUANTITY = re.compile(r"^\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?$")


@dataclass(frozen=True)
class Job:
    """A training job, whatever runs it. Quantities are Kubernetes' own ('8', '500m', '32Gi'); '' leaves them to the cluster.

    num_workers: Pods. min_workers: fewest that may go on training where some are lost; 0 for all.
    num_processes: Ranks in each pod.
    meet_seconds: How long ranks wait for each other before they give up.
    tolerations, affinity, volumes, volume_mounts, env: as in a pod's spec.
    """

    name: str
    image: str
    command: Sequence[str]
    labels: Mapping[str, str]
    num_workers: int = 1
    min_workers: int = 0
    num_processes: int = 1
    num_gpus: int = 0
    cpu: str = ""
    memory: str = ""
    shared_memory: str = SHARED_MEMORY
    queue: str = ""
    priority_class: str = ""
    image_pull_secrets: Sequence[str] = ()
    meet_seconds: int = 900
    max_restarts: int = 3
    ttl_seconds: int = 86400
    runtime: str = RUNTIME
    env: Sequence[Object] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Object] = ()
    affinity: Mapping[str, Any] = field(default_factory=dict)
    volumes: Sequence[Object] = ()
    volume_mounts: Sequence[Object] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)
    owner: Object | None = None

    @property
    def stage(self) -> str:
        return self.labels[STAGE_LABEL]

    def __post_init__(self) -> None:
        for name, least in (("num_workers", 1), ("num_processes", 1), ("num_gpus", 0), ("min_workers", 0), ("max_restarts", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}: give {least} or more")
        if self.min_workers > self.num_workers:
            raise UserError(f"min_workers is {self.min_workers}, num_workers {self.num_workers}: give at most as many")
        for name in ("cpu", "memory", "shared_memory"):
            value = getattr(self, name)
            if value and not QUANTITY.match(value):
                raise UserError(f"{name} is {value}: give a quantity as Kubernetes has them, such as 8 or 32Gi")


def job_name(stage: str, pipeline_run_id: str, pipeline_task_id: str) -> str:
    """The same for every try of a task, so that a later one finds what an earlier one started."""
    digest = hashlib.sha256(f"{pipeline_run_id}/{pipeline_task_id}".encode()).hexdigest()
    return f"adapt-{stage}-{digest[:16]}"


def label_value(text: str) -> str:
    """`text` as a label's value: a digest of it where Kubernetes would refuse it."""
    if re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", text):
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def manifest(job: Job, kind: JobKind) -> Object:
    """What is sent to the API server. Its annotation DIGEST tells one job's manifest from another's."""
    if (over := len(POD_NAME[kind].format(job.name, job.num_workers - 1)) - LONGEST_POD_NAME) > 0:
        raise UserError(f"the job's name {job.name} makes names of pods that are too long: shorten it by {over} characters")
    built = _trainjob(job) if kind == "trainjob" else _pytorchjob(job)
    digest = hashlib.sha256(json.dumps(built, sort_keys=True).encode()).hexdigest()
    built["metadata"]["annotations"] = {DIGEST: digest}
    if job.owner:  # not in the digest: a later try of the step may be another pod's
        built["metadata"]["ownerReferences"] = [job.owner]
    return built


def _pytorchjob(job: Job) -> Object:
    elastic = 0 < job.min_workers < job.num_workers
    replicas = {
        "replicas": job.num_workers,
        # ExitCode replaces pods that were killed; all else is the launcher's to decide, who knows what the codes mean.
        "restartPolicy": "ExitCode" if elastic else "Never",
        "template": {"metadata": _pod_metadata(job), "spec": _pod(job)},
    }
    spec: Object = {
        "nprocPerNode": str(job.num_processes),
        # None: a job of Workers has succeeded for the operator when the first of them has, and the others still write.
        "runPolicy": {"cleanPodPolicy": "None", "ttlSecondsAfterFinished": job.ttl_seconds},
        "pytorchReplicaSpecs": {"Master" if job.num_workers == 1 else "Worker": replicas},
    }
    if job.num_workers > 1:
        spec["elasticPolicy"] = {
            "minReplicas": job.min_workers or job.num_workers,
            "maxReplicas": job.num_workers,
            "rdzvBackend": "c10d",
            "rdzvConf": [{"key": key, "value": str(job.meet_seconds)} for key in ("join_timeout", "read_timeout")],
            "maxRestarts": job.max_restarts if elastic else 0,
        }
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": _metadata(job), "spec": spec}


def _trainjob(job: Job) -> Object:
    if job.min_workers:
        raise UserError("min_workers needs launcher=pytorchjob: a TrainJob is not elastic (Trainer 2.2 took it out)")
    if job.priority_class:
        raise UserError("priority_class needs launcher=pytorchjob: for a TrainJob set it in the runtime, or use a queue")
    (container,) = _pod(job)["containers"]
    is_ours = job.runtime == RUNTIME
    spec: Object = {
        "runtimeRef": {"name": job.runtime, "kind": "TrainingRuntime" if is_ours else "ClusterTrainingRuntime"},
        "trainer": {
            "image": job.image,
            "command": list(job.command),
            "numNodes": job.num_workers,
            "numProcPerNode": job.num_processes,
            "resourcesPerNode": container["resources"],
            "env": container["env"],
        },
    }
    patch, said = _patch(job), _patch(replace(job, **AS_IN_RUNTIME)) if is_ours else {}
    # Kueue writes a TrainJob again, with the fields that it knows: what its runtime says had better not be in there.
    template: Object = {"spec": {key: it for key, it in patch.items() if it != said.get(key)}}
    if not is_ours:
        template["metadata"] = _pod_metadata(job)
    if template["spec"]:
        jobs = [{"name": "node", "template": {"spec": {"template": template}}}]
        runtime = {"trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}
        spec["runtimePatches"] = [{"manager": "adapt.pipeline/launcher", **runtime}]
    return {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": _metadata(job), "spec": spec}


PATCHABLE = (
    "affinity",
    "imagePullSecrets",
    "nodeSelector",
    "securityContext",
    "terminationGracePeriodSeconds",
    "tolerations",
    "volumes",
)
"""What of a pod's spec a TrainJob may set beside its runtime."""
AS_IN_RUNTIME: Mapping[str, Any] = {
    "shared_memory": SHARED_MEMORY,
    "volumes": (),
    "volume_mounts": (),
    "node_selector": {},
    "tolerations": (),
    "affinity": {},
    "image_pull_secrets": (),
}
"""A job whose pods are as k8s/components/trainer says."""


def _patch(job: Job) -> Object:
    """All that a TrainJob may say of its pods beside its runtime."""
    pod = _pod(job)
    (container,) = pod["containers"]
    patched = {"name": "node", **{key: container[key] for key in ("securityContext", "volumeMounts")}}
    return {key: pod[key] for key in PATCHABLE if key in pod} | {"containers": [patched]}


NAME_OF = {"configMap": "name", "secret": "secretName"}
"""What a volume of that kind calls its source."""


def _metadata(job: Job) -> Object:
    queue = {QUEUE_LABEL: job.queue} if job.queue else {}
    return {"name": job.name, "labels": {**job.labels, **queue}}


def _pod_metadata(job: Job) -> Object:
    # A sidecar would outlive the ranks, and encrypts what they say to each other on ports it does not know.
    istio = {"sidecar.istio.io/inject": "false"}
    return {"labels": {**job.labels, **istio}, "annotations": istio}


def _pod(job: Job) -> Object:
    volumes: list[Object] = [
        {
            "name": "rank-shm",
            "emptyDir": {"medium": "Memory", "sizeLimit": job.shared_memory},
        },  # 64 MiB by default: a bus error
        {"name": "rank-tmp", "emptyDir": {}},
        {"name": "rank-ca", "configMap": {"name": CERTIFICATES, "optional": True}},
        *({"name": f"rank-{name}", kind: {NAME_OF[kind]: name, "optional": True}} for name, (kind, _) in MOUNTS.items()),
    ]
    mounts: list[Object] = [
        {"name": "rank-shm", "mountPath": "/dev/shm"},
        {"name": "rank-tmp", "mountPath": "/tmp"},
        {"name": "rank-ca", "mountPath": CERTIFICATES_DIR, "readOnly": True},
        *({"name": f"rank-{name}", "mountPath": path, "readOnly": True} for name, (_, path) in MOUNTS.items()),
    ]
    # The step may have its own at the same places: a pod with two there is refused.
    ours = {mount["mountPath"] for mount in mounts}
    mounts += [mount for mount in job.volume_mounts if mount["mountPath"] not in ours]
    volumes += [volume for volume in job.volumes if volume["name"] in {mount["name"] for mount in mounts}]
    pod: Object = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 120,  # a last checkpoint has to reach the store
        "containers": [
            {
                "name": "pytorch",
                "image": job.image,
                "imagePullPolicy": "IfNotPresent",
                "command": list(job.command),
                "env": _environment(job),
                "resources": _resources(job),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "runAsNonRoot": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    chosen = {
        "nodeSelector": dict(job.node_selector),
        "tolerations": list(job.tolerations),
        "affinity": dict(job.affinity),
        "priorityClassName": job.priority_class,
        "imagePullSecrets": [{"name": name} for name in job.image_pull_secrets],
    }
    return pod | {"restartPolicy": "Never"} | {key: value for key, value in chosen.items() if value}


def _environment(job: Job) -> list[Object]:
    """The step's own, then what a manifest says of its maker."""
    named = {entry["name"]: entry for entry in job.env}
    ours = {"JOB_NAME": job.name, "IMAGE": job.image}
    if 0 < job.min_workers < job.num_workers:
        # Survivors of a lost worker would meet in the store that it took with it, and hang until their time-out.
        ours["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    named |= {name: {"name": name, "value": value} for name, value in ours.items()}
    return list(named.values())


def _resources(job: Job) -> Object:
    """What the step itself asked for, and over it the parameters."""
    asked = {"cpu": job.cpu, "memory": job.memory, "nvidia.com/gpu": str(job.num_gpus or "")}
    wanted = {name: quantity for name, quantity in asked.items() if quantity}
    return {side: {**job.resources.get(side, {}), **wanted} for side in ("requests", "limits")}
