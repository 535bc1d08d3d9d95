"""A small pod and a small job as Pod Security `restricted` wants them: what the doctor asks the cluster to take."""

from components.launch.api import Object

LABELS = {"app.kubernetes.io/name": "adapt", "app.kubernetes.io/component": "doctor"}
USER = 65532  # of our images


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
    """The least job that a cluster takes; it is never run."""
    if kind == "trainjob":
        runtime = {"apiGroup": "trainer.kubeflow.org", "kind": "ClusterTrainingRuntime", "name": "torch-distributed"}
        return {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {"name": name, "labels": LABELS},
            "spec": {"runtimeRef": runtime, "trainer": {"image": image, "command": ["true"], "numNodes": 1}},
        }
    template = pod(name, image, ["true"], container="pytorch")
    del template["spec"]["restartPolicy"]  # the replica's own
    replica = {
        "replicas": 1,
        "restartPolicy": "Never",
        "template": {"metadata": {"annotations": template["metadata"]["annotations"]}, "spec": template["spec"]},
    }
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "labels": LABELS},
        "spec": {"pytorchReplicaSpecs": {"Master": replica}},
    }
