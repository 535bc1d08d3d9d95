"""The manifests: whole, valid, without secrets, and let in by Pod Security `restricted`."""

import copy
import ipaddress
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from manifests import K8S, OVERLAYS, ROOTS, needs_kubectl, not_restricted, pod_specs, rendered, written

KUBERNETES = "1.36"
POD: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "one",
            "image": "one:1",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
}


def test_there_is_an_overlay_for_every_situation() -> None:
    assert {overlay.removeprefix("overlays/") for overlay in OVERLAYS} == {"kind", "multi-user", "air-gapped", "gpu"}


@pytest.mark.parametrize("root", ROOTS)
def test_what_kustomize_makes_is_valid(root: str) -> None:
    needs_kubectl()
    documents = rendered(root)
    assert documents
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_what_is_written_is_valid_before_kustomize_too() -> None:
    documents = written()
    assert {"Role", "RoleBinding", "NetworkPolicy", "ConfigMap", "Deployment", "StatefulSet"} <= {
        it["kind"] for it in documents
    }
    for document in documents:
        if document["kind"] != "TrainingRuntime":  # which tests/launch holds to its CRD
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_a_mistake_is_found_by_the_schemas() -> None:
    broken = copy.deepcopy(next(it for it in written() if it["kind"] == "Deployment"))
    broken["spec"]["template"]["spec"]["containers"][0]["imagePullPolicie"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_puts_all_of_it_in_one_namespace(overlay: str) -> None:
    needs_kubectl()
    (namespace,) = {document["metadata"]["namespace"] for document in rendered(overlay)}
    (binding,) = (document for document in rendered(overlay) if document["kind"] == "RoleBinding")
    user = "default-editor" if overlay == "overlays/multi-user" else "pipeline-runner"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": user, "namespace": namespace}]


def test_no_manifest_has_a_secret_or_a_tag_that_moves() -> None:
    assert not [document for document in written() if document["kind"] == "Secret"]
    for path in K8S.rglob("*.yaml"):
        text = path.read_text()
        assert not re.search(r"secretGenerator|password: *\S", text.replace("key: password", "")), path
        for image in re.findall(r"image: (\S+)", text):
            assert image == "{{.InitContainerImage}}" or re.search(r":[\w.-]*\d|@sha256:", image), f"{path}: {image}"
            assert ":latest" not in image


def test_every_pod_of_ours_is_let_in_by_restricted() -> None:
    pods = [pod for document in written() for pod in pod_specs(document)]
    assert len(pods) == 4
    for pod in pods:
        assert not_restricted(pod) == []
        assert pod["automountServiceAccountToken"] is False
        assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in pod["containers"])


def test_the_operators_init_container_is_let_in_by_restricted() -> None:
    text = (K8S / "operator" / "initContainer.yaml").read_text()
    for field, value in {"InitContainerImage": "alpine:3.10", "MasterAddr": "job-master-0", "MaxTries": "100"}.items():
        assert f"{{{{.{field}}}}}" in text
        text = text.replace(f"{{{{.{field}}}}}", value)
    assert "{{" not in text
    (container,) = yaml.safe_load(text)
    assert container["name"] == "init-pytorch"
    job_pod = {**POD, "initContainers": [container]}
    assert not_restricted(job_pod) == []
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", "spec": job_pod}, KUBERNETES, strict=True)
    bare = {**POD, "initContainers": [{key: container[key] for key in ("name", "image", "command")}]}
    assert "init-pytorch: allowPrivilegeEscalation" in not_restricted(bare)


@pytest.mark.parametrize(
    ("where", "value", "refused"),
    [
        (("hostNetwork",), True, "hostNetwork"),
        (("volumes", 0), {"name": "tmp", "hostPath": {"path": "/tmp"}}, "volume tmp"),
        (("securityContext", "runAsNonRoot"), False, "one: runAsNonRoot"),
        (("securityContext", "runAsUser"), 0, "one: runAsUser"),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}, "one: seccompProfile"),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True, "one: allowPrivilegeEscalation"),
        (("containers", 0, "securityContext", "capabilities"), {"drop": ["NET_RAW"]}, "one: capabilities.drop"),
        (("containers", 0, "securityContext", "capabilities", "add"), ["SYS_ADMIN"], "one: capabilities.add"),
        (("containers", 0, "securityContext", "privileged"), True, "one: privileged"),
        (("containers", 0, "ports"), [{"containerPort": 1, "hostPort": 1}], "one: hostPort"),
        (("containers", 0, "livenessProbe"), {"httpGet": {"host": "other", "port": 1}}, "one: probe host"),
    ],
)
def test_what_restricted_refuses_is_found(where: tuple[Any, ...], value: Any, refused: str) -> None:
    pod = copy.deepcopy(POD)
    assert not_restricted(pod) == []
    inner: Any = pod
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    assert not_restricted(pod) == [refused]


def test_a_jobs_pods_reach_outside_only_where_there_is_an_outside() -> None:
    needs_kubectl()
    for overlay in OVERLAYS:
        (policy,) = (it for it in rendered(overlay) if it["metadata"]["name"] == "adapt-train")
        assert policy["spec"]["podSelector"] == policy["spec"]["ingress"][0]["from"][0]["podSelector"]
        blocks = [peer["ipBlock"]["cidr"] for rule in policy["spec"]["egress"] for peer in rule["to"] if "ipBlock" in peer]
        outside = [block for block in blocks if not ipaddress.ip_network(block).is_private]
        assert outside == ([] if overlay == "overlays/air-gapped" else ["0.0.0.0/0", "::/0"])
        inside = [block for block in blocks if block not in outside]
        nodes = [block for block in inside if ipaddress.ip_network(block).is_link_local]
        assert len(inside) == len(nodes) + 5
        assert "169.254.169.254/32" in nodes  # no cloud's word for who a pod is, and no names from the node itself, without


@pytest.mark.parametrize("root", [it for it in ROOTS if it != "operator"])
def test_all_that_is_ours_bears_our_name(root: str) -> None:
    """Kubeflow Pipelines has a seaweedfs of its own: whoever is applied second would break the other."""
    needs_kubectl()
    assert [it["metadata"]["name"] for it in rendered(root) if not re.match("adapt(-|$)", it["metadata"]["name"])] == []
