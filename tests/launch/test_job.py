"""The manifests of training jobs: valid by the CRDs' schemas and Kubernetes', and by what those let through."""

import functools
import json
import lzma
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from manifests import not_restricted

from components.errors import UserError
from components.launch.job import DIGEST, LONGEST_NAME, RUN_LABEL, Job, job_name, label_value, manifest
from components.parameters import JobKind

CRDS = Path(__file__).parent / "crds"
FILES = {"pytorchjob": "kubeflow.org_pytorchjobs.yaml.xz", "trainjob": "trainer.kubeflow.org_trainjobs.yaml.xz"}
SECRET = "do-not-show-me"


def job(**settings: Any) -> Job:
    given: dict[str, Any] = {"name": "adapt-train-1", "image": "registry/adapt@sha256:0", "command": ["python", "-m", "x"]}
    return Job(**(given | {"labels": {RUN_LABEL: "run-1"}} | settings))


SHAPES: dict[str, dict[str, Any]] = {
    "one pod": {},
    "four pods with GPUs": {"num_workers": 4, "num_gpus": 8, "num_processes": 8, "cpu": "32", "memory": "256Gi"},
    "elastic": {"num_workers": 4, "min_workers": 2},
    "all settings": {
        "num_workers": 2,
        "queue": "team",
        "image_pull_secrets": ["registry"],
        "env": [{"name": "A", "value": "b"}],
        "node_selector": {"gpu": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}],
        "volume_mounts": [{"name": "shared", "mountPath": "/shared"}],
        "resources": {"limits": {"memory": "8Gi"}, "requests": {"memory": "4Gi"}},
        "owner": {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "adapt-x", "uid": "1"},
    },
}


@functools.cache
def crd_schema(kind: JobKind) -> dict[str, Any]:
    """What the API server holds a job to, with fieldValidation=Strict."""
    text = lzma.decompress((CRDS / FILES[kind]).read_bytes())
    (version,) = yaml.load(text, Loader=yaml.CSafeLoader)["spec"]["versions"]
    schema: dict[str, Any] = strict(version["schema"]["openAPIV3Schema"])
    for name in ("metadata", "apiVersion", "kind"):
        schema["properties"][name] = {}
    return schema


def strict(schema: Any) -> Any:
    """A CRD's schema with nothing allowed that it does not name, as the API server holds it with fieldValidation=Strict."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {key: strict(value) for key, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


def pod_template(body: dict[str, Any]) -> dict[str, Any]:
    (spec,) = body["spec"]["pytorchReplicaSpecs"].values()
    template: dict[str, Any] = spec["template"]
    return template


@pytest.mark.parametrize("kind", ["pytorchjob", "trainjob"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_manifest_is_valid_by_its_crd(kind: JobKind, shape: str) -> None:
    if kind == "trainjob" and shape == "elastic":
        pytest.skip("a TrainJob is not elastic")
    schema = crd_schema(kind)
    jsonschema.validate(manifest(job(**SHAPES[shape]), kind), schema)


@pytest.mark.parametrize("kind", ["pytorchjob", "trainjob"])
def test_the_schema_refuses_what_it_does_not_name(kind: JobKind) -> None:
    body = manifest(job(), kind)
    body["spec"]["typo"] = 1
    with pytest.raises(jsonschema.ValidationError, match="typo"):
        jsonschema.validate(body, crd_schema(kind))


@pytest.mark.parametrize("shape", SHAPES)
def test_its_pods_are_valid_and_pass_pod_security_restricted(shape: str) -> None:
    template = pod_template(manifest(job(**SHAPES[shape]), "pytorchjob"))
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"} | template["metadata"], "spec": template["spec"]}
    kubernetes_validate.validate(pod, "1.36", strict=True)
    assert not_restricted(template["spec"]) == []


def test_what_the_schemas_let_through_is_right() -> None:
    body = manifest(job(num_workers=3), "pytorchjob")
    (replicas,) = body["spec"]["pytorchReplicaSpecs"].values()
    (container,) = replicas["template"]["spec"]["containers"]
    assert replicas["restartPolicy"] in ("Never", "OnFailure", "Always", "ExitCode")
    assert body["spec"]["runPolicy"]["cleanPodPolicy"] in ("None", "Running", "All")
    assert container["name"] == "pytorch"  # the operator's webhook wants it
    assert body["spec"]["elasticPolicy"]["rdzvBackend"] == "c10d"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/dev/shm", "/tmp"} <= mounts
    assert replicas["template"]["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    assert replicas["template"]["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(("num_workers", "role"), [(1, "Master"), (2, "Worker")])
def test_no_shape_gets_the_operators_init_container(num_workers: int, role: str) -> None:
    """It is added to the Workers of a job with a Master."""
    assert list(manifest(job(num_workers=num_workers), "pytorchjob")["spec"]["pytorchReplicaSpecs"]) == [role]


def test_a_job_that_may_lose_pods_has_them_replaced_and_others_start_again() -> None:
    elastic = manifest(job(num_workers=4, min_workers=2), "pytorchjob")["spec"]
    assert (elastic["elasticPolicy"]["minReplicas"], elastic["elasticPolicy"]["maxReplicas"]) == (2, 4)
    assert elastic["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] == "ExitCode"
    whole = manifest(job(num_workers=4), "pytorchjob")["spec"]
    assert (whole["elasticPolicy"]["minReplicas"], whole["elasticPolicy"]["maxReplicas"]) == (4, 4)
    assert whole["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] == "Never"


def test_kueue_priority_and_owner_are_on_the_job() -> None:
    body = manifest(job(**SHAPES["all settings"], priority_class="high"), "pytorchjob")
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert body["metadata"]["ownerReferences"][0]["kind"] == "Workflow"
    assert pod_template(body)["spec"]["priorityClassName"] == "high"


def test_what_the_step_mounts_at_our_own_places_is_left_out() -> None:
    mounts = [{"name": "adapt-ca", "mountPath": "/etc/adapt/ca"}, {"name": "data", "mountPath": "/data"}]
    volumes = [{"name": "adapt-ca", "configMap": {"name": "adapt-ca"}}, {"name": "data", "emptyDir": {}}]
    spec = pod_template(manifest(job(volumes=volumes, volume_mounts=mounts), "pytorchjob"))["spec"]
    assert [volume["name"] for volume in spec["volumes"]] == ["rank-shm", "rank-tmp", "rank-ca", "data"]
    paths = [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]]
    assert paths == ["/dev/shm", "/tmp", "/etc/adapt/ca", "/data"]


def test_parameters_win_over_what_the_step_asks_for() -> None:
    asked = {"limits": {"memory": "8Gi", "nvidia.com/gpu": "1"}, "requests": {"memory": "4Gi"}}
    body = manifest(job(memory="16Gi", resources=asked), "pytorchjob")
    resources = pod_template(body)["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"memory": "16Gi", "nvidia.com/gpu": "1"}, "requests": {"memory": "16Gi"}}


@pytest.mark.parametrize("kind", ["pytorchjob", "trainjob"])
def test_secrets_are_named_and_never_held(kind: JobKind, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    text = json.dumps(manifest(job(), kind))
    assert SECRET not in text
    assert '{"secretKeyRef": {"name": "adapt-s3", "key": "AWS_SECRET_ACCESS_KEY", "optional": true}}' in text


def test_the_digest_names_the_work_and_not_who_waits_for_it() -> None:
    owned = job(owner={"apiVersion": "v1", "kind": "Pod", "name": "step", "uid": "1"})
    digests = [manifest(it, "pytorchjob")["metadata"]["annotations"][DIGEST] for it in (job(), owned, job(num_workers=2))]
    assert digests[0] == digests[1] != digests[2]


def test_names_and_labels_are_what_kubernetes_takes() -> None:
    name = job_name("0a1b2c3d-run", "task")
    assert name == job_name("0a1b2c3d-run", "task") != job_name("0a1b2c3d-run", "another")
    assert len(name) <= LONGEST_NAME
    assert label_value("c0ffee-1") == "c0ffee-1"
    assert len(label_value("{{$.pipeline_job_uuid}}")) == 40


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a" * 60}, "has 60 characters: give at most 51"),
        ({"num_workers": 0}, "num_workers is 0"),
        ({"min_workers": 3, "num_workers": 2}, "min_workers is 3, num_workers 2"),
        ({"memory": "lots"}, "memory is lots: give a quantity"),
        ({"max_restarts": -1}, "max_restarts is -1"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        job(**settings)


def test_a_trainjob_says_what_it_cannot_do() -> None:
    with pytest.raises(UserError, match="not elastic"):
        manifest(job(num_workers=2, min_workers=1), "trainjob")
    with pytest.raises(UserError, match="priority_class"):
        manifest(job(priority_class="high"), "trainjob")
