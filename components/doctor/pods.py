"""A pod as Pod Security `restricted` wants it: what the doctor asks the cluster to take."""

from collections.abc import Mapping

from components.launch.api import Object
from components.launch.namespace import USER

LABELS = {"app.kubernetes.io/name": "adapt", "app.kubernetes.io/component": "doctor"}


def pod(name: str, image: str, command: list[str], service_account: str = "", asked: Mapping[str, str] | None = None) -> Object:
    """asked: resource -> quantity, request and limit at once; a little where it says nothing."""
    asked = asked or {}
    spec: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "doctor",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": command,
                "resources": {
                    "requests": {"cpu": "100m", "memory": "128Mi", **asked},
                    "limits": {"cpu": "500m", "memory": "256Mi", **asked},
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
