"""What is in k8s/, as kustomize puts it together, and the rules that Pod Security `restricted` has for a pod."""

import functools
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from support import ROOT

K8S = ROOT / "k8s"
OVERLAYS = sorted(path.parent.relative_to(K8S).as_posix() for path in K8S.glob("overlays/*/kustomization.yaml"))
ROOTS = (*OVERLAYS, "base", "mlflow", "operator")
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}

Document = dict[str, Any]


def needs_kubectl() -> None:
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl here, whose kustomize puts the manifests together")


@functools.cache
def rendered(root: str) -> list[Document]:
    """What `kubectl apply -k k8s/ROOT` would send."""
    done = subprocess.run(["kubectl", "kustomize", str(K8S / root)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def written() -> list[Document]:
    """Every document below k8s/ that is an object of Kubernetes, before kustomize."""
    files = [path for path in K8S.rglob("*.yaml") if path.name not in ("kustomization.yaml", "initContainer.yaml")]
    return [document for path in sorted(files) for document in yaml.safe_load_all(path.read_text()) if "kind" in document]


def pod_specs(document: Document) -> Iterator[dict[str, Any]]:
    """Every pod template in a document, however deep."""
    if isinstance(document, dict):
        if "containers" in document:
            yield document
        for value in document.values():
            yield from pod_specs(value)
    elif isinstance(document, list):
        for value in document:
            yield from pod_specs(value)


def not_restricted(pod: dict[str, Any]) -> list[str]:
    """What of a pod Pod Security `restricted` refuses, its `baseline` part included (v1.36)."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    found += [f"volume {it['name']}" for it in pod.get("volumes", []) if not VOLUMES & set(it)]
    whole = pod.get("securityContext", {})
    found += ["sysctls"] if whole.get("sysctls") else []
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(kind, []):
            own = container.get("securityContext", {})
            found += [f"{container['name']}: {it}" for it in _of_container(container, own, {**whole, **own})]
    return found


def _of_container(container: dict[str, Any], own: dict[str, Any], effective: dict[str, Any]) -> Iterator[str]:
    capabilities = own.get("capabilities", {})
    hooks = [container.get(it, {}) for it in ("startupProbe", "readinessProbe", "livenessProbe")]
    hooks += container.get("lifecycle", {}).values()
    wrong = {
        "privileged": own.get("privileged", False),
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is not False,
        "capabilities.drop": "ALL" not in capabilities.get("drop", []),
        "capabilities.add": bool(set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}),
        "runAsNonRoot": effective.get("runAsNonRoot") is not True,
        "runAsUser": effective.get("runAsUser") == 0,
        "seccompProfile": effective.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"),
        "appArmorProfile": effective.get("appArmorProfile", {}).get("type") == "Unconfined",
        "seLinuxOptions": bool({"user", "role"} & set(effective.get("seLinuxOptions", {}))),
        "procMount": own.get("procMount", "Default") != "Default",
        "hostPort": any(port.get("hostPort") for port in container.get("ports", [])),
        "probe host": any(hook.get(kind, {}).get("host") for hook in hooks for kind in ("httpGet", "tcpSocket")),
    }
    yield from (name for name, is_wrong in wrong.items() if is_wrong)


def granted() -> set[tuple[str, str, str]]:
    """(API group, resource, verb) of all that the Role lets the steps' service account do."""
    (role,) = (document for document in written() if document["kind"] == "Role")
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
