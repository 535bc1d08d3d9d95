"""A small pod and a small job as Pod Security `restricted` wants them: what the doctor asks the cluster to take."""

from components.launch.api import Object
from components.launch.job import Job, manifest
from components.launch.namespace import USER

LABELS = {"app.kubernetes.io/name": "adapt", "app.kubernetes.io/component": "doctor"}


def pod(name: str, image: str, command: list[str], service_account: str = "", container: str = "doctor") -> Object:
    spec: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": container,
                "image": image,
                "command": command,
                "resources": {
                    "requests": {"cpu": "100m", "memory": "128Mi"},
                    "limits": {"cpu": "500m", "memory": "256Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
    }
    if service_account:
        spec["serviceAccountName"] = service_account
    annotations = {"sidecar.istio.io/inject": "false"}  # a mesh's proxy would come between the ranks
    metadata = {"name": name, "labels": LABELS, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def job(kind: str, name: str, image: str) -> Object:
    """The least job that a cluster takes, as the launcher would say it; it is never run."""
    return manifest(
        Job(name=name, image=image, command=["true"], labels=LABELS), "trainjob" if kind == "trainjob" else "pytorchjob"
    )
