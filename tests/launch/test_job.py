"""The manifests of training jobs: valid by the CRDs' schemas and Kubernetes', and by what those let through."""

import functools
import json
import lzma
from pathlib import Path
from typing import Any, get_args

import jsonschema
import kubernetes_validate
import pytest
import yaml
from manifests import not_restricted
from support import ROOT

from components.errors import UserError
from components.launch.job import DIGEST, RUN_LABEL, RUNTIME, STAGE_LABEL, Job, job_name, label_value, manifest
from components.parameters import JobKind

CRDS = Path(__file__).parent / "crds"
FILES = {
    "pytorchjob": "kubeflow.org_pytorchjobs.yaml.xz",
    "trainjob": "trainer.kubeflow.org_trainjobs.yaml.xz",
    "runtime": "trainer.kubeflow.org_trainingruntimes.yaml.xz",
}
RUNTIME_FILE = ROOT / "k8s" / "components" / "trainer" / "runtime.yaml"
SECRET = "do-not-show-me"


def job(**settings: Any) -> Job:
    given: dict[str, Any] = {"name": "adapt-train-1", "image": "registry/adapt@sha256:0", "command": ["python", "-m", "x"]}
    return Job(**(given | {"labels": {STAGE_LABEL: "train", RUN_LABEL: "run-1"}} | settings))


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
def crd_schema(kind: str) -> dict[str, Any]:
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
    own_store = {"name": "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "value": "1"}  # that of a lost worker is lost with it
    assert own_store in elastic["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["env"]
    whole = manifest(job(num_workers=4), "pytorchjob")["spec"]
    assert own_store not in whole["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["env"]
    assert (whole["elasticPolicy"]["minReplicas"], whole["elasticPolicy"]["maxReplicas"]) == (4, 4)
    assert whole["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] == "Never"


def test_kueue_priority_and_owner_are_on_the_job() -> None:
    body = manifest(job(**SHAPES["all settings"], priority_class="high"), "pytorchjob")
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert body["metadata"]["ownerReferences"][0]["kind"] == "Workflow"
    assert pod_template(body)["spec"]["priorityClassName"] == "high"


SOURCES = {"adapt-config": "configMap", "adapt-s3": "secret", "adapt-mlflow": "secret"}
PLACES = {"adapt-config": "/etc/adapt/config", "adapt-s3": "/etc/adapt/s3", "adapt-mlflow": "/etc/adapt/mlflow"}
OWN = ["/dev/shm", "/tmp", "/etc/adapt/ca", *PLACES.values()]


def volumes_and_mounts(body: dict[str, Any], kind: JobKind) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of the job's pods."""
    spec = pod_template(body)["spec"] if kind == "pytorchjob" else patched_pod(body)
    (container,) = spec["containers"]
    return spec["volumes"], container["volumeMounts"]


def runtime_template() -> dict[str, Any]:
    """Of the pods, in the TrainingRuntime of k8s/components/trainer."""
    (replicated,) = yaml.safe_load(RUNTIME_FILE.read_text())["spec"]["template"]["spec"]["replicatedJobs"]
    template: dict[str, Any] = replicated["template"]["spec"]["template"]
    return template


def patched_pod(body: dict[str, Any]) -> dict[str, Any]:
    """A TrainJob's pods, as far as the runtime and the patches on it say."""
    spec = runtime_template()["spec"] if body["spec"]["runtimeRef"]["name"] == RUNTIME else {"containers": [{}]}
    for patch in body["spec"].get("runtimePatches", []):
        (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        patched = replicated["template"]["spec"]["template"]["spec"]
        containers = [spec["containers"][0] | patched.get("containers", [{}])[0]]
        spec = spec | patched | {"containers": containers}
    return spec


def test_the_runtime_is_valid_by_its_crd() -> None:
    jsonschema.validate(yaml.safe_load(RUNTIME_FILE.read_text()), crd_schema("runtime"))


def test_pods_of_a_trainjob_are_those_of_a_pytorchjob() -> None:
    """But for what each kind says at another place."""
    template, pods = pod_template(manifest(job(), "pytorchjob")), runtime_template()
    (own,), (theirs,) = template["spec"].pop("containers"), pods["spec"].pop("containers")
    assert pods["spec"] == template["spec"]
    elsewhere = {"name", "image", "command", "env", "resources"}
    assert {key: it for key, it in theirs.items() if key not in elsewhere} == {
        key: it for key, it in own.items() if key not in elsewhere
    }
    assert pods["metadata"]["annotations"] == template["metadata"]["annotations"]
    assert pods["metadata"]["labels"].items() <= manifest_labels().items()


def manifest_labels() -> dict[str, str]:
    """As the launcher labels pods of a training."""
    given = {"app.kubernetes.io/name": "adapt", STAGE_LABEL: "train"}
    labels: dict[str, str] = pod_template(manifest(job(labels=given), "pytorchjob"))["metadata"]["labels"]
    return labels


def test_a_trainjob_says_no_more_of_its_pods_than_was_asked_for() -> None:
    """Kueue writes it again, with the fields that it knows, and what it drops JobSet takes for a change."""
    assert "runtimePatches" not in manifest(job(), "trainjob")["spec"]
    of_the_step = [{"name": "adapt-s3", "mountPath": "/etc/adapt/s3"}]  # which every compiled step mounts
    assert "runtimePatches" not in manifest(job(volume_mounts=of_the_step), "trainjob")["spec"]
    (patch,) = manifest(job(node_selector={"gpu": "h100"}), "trainjob")["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["template"]["spec"]["template"] == {"spec": {"nodeSelector": {"gpu": "h100"}}}
    (shm, *_) = patched_pod(manifest(job(shared_memory="8Gi"), "trainjob"))["volumes"]
    assert shm["emptyDir"]["sizeLimit"] == "8Gi"


def test_a_runtime_of_the_cluster_is_told_all_of_it() -> None:
    body = manifest(job(runtime="torch-distributed"), "trainjob")
    assert body["spec"]["runtimeRef"] == {"name": "torch-distributed", "kind": "ClusterTrainingRuntime"}
    spec = patched_pod(body)
    assert spec["terminationGracePeriodSeconds"] == runtime_template()["spec"]["terminationGracePeriodSeconds"]
    assert spec["securityContext"] == runtime_template()["spec"]["securityContext"]
    assert spec["volumes"] == runtime_template()["spec"]["volumes"]


@pytest.mark.parametrize("kind", ["pytorchjob", "trainjob"])
def test_its_pods_mount_the_namespaces_settings_of_which_none_must_be_there(kind: JobKind) -> None:
    volumes, mounts = volumes_and_mounts(manifest(job(), kind), kind)
    named = {volume["name"]: volume for volume in volumes}
    by_path = {mount["mountPath"]: mount for mount in mounts}
    assert list(by_path) == OWN
    for name, source in SOURCES.items():
        mount = by_path[PLACES[name]]
        assert mount["readOnly"]
        key = "name" if source == "configMap" else "secretName"
        assert named[mount["name"]] == {"name": mount["name"], source: {key: name, "optional": True}}


@pytest.mark.parametrize("kind", ["pytorchjob", "trainjob"])
def test_what_the_step_mounts_at_our_own_places_is_left_out(kind: JobKind) -> None:
    """As a compiled pipeline's step does: kfp-kubernetes calls a volume as its source."""
    mounts = [{"name": "adapt-ca", "mountPath": "/etc/adapt/ca"}, {"name": "data", "mountPath": "/data"}]
    volumes = [{"name": "adapt-ca", "configMap": {"name": "adapt-ca"}}, {"name": "data", "emptyDir": {}}]
    for name, source in SOURCES.items():
        mounts.append({"name": name, "mountPath": PLACES[name]})
        volumes.append({"name": name, source: {"name" if source == "configMap" else "secretName": name}})
    mounts.append({"name": "tmp", "mountPath": "/tmp"})
    volumes.append({"name": "tmp", "emptyDir": {}})
    found, mounted = volumes_and_mounts(manifest(job(volumes=volumes, volume_mounts=mounts), kind), kind)
    assert [it["name"] for it in found] == ["rank-shm", "rank-tmp", "rank-ca", *(f"rank-{name}" for name in SOURCES), "data"]
    assert [it["mountPath"] for it in mounted] == [*OWN, "/data"]
    assert {it["name"] for it in mounted} == {it["name"] for it in found}


def test_parameters_win_over_what_the_step_asks_for() -> None:
    asked = {"limits": {"memory": "8Gi", "nvidia.com/gpu": "1"}, "requests": {"memory": "4Gi"}}
    body = manifest(job(memory="16Gi", resources=asked), "pytorchjob")
    resources = pod_template(body)["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"memory": "16Gi", "nvidia.com/gpu": "1"}, "requests": {"memory": "16Gi"}}


@pytest.mark.parametrize("kind", ["pytorchjob", "trainjob"])
def test_secrets_are_named_and_never_held(kind: JobKind, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    body = manifest(job(), kind)
    assert SECRET not in json.dumps(body)
    volumes, _ = volumes_and_mounts(body, kind)
    assert [it["secret"] for it in volumes if "secret" in it] == [
        {"secretName": "adapt-s3", "optional": True},
        {"secretName": "adapt-mlflow", "optional": True},
    ]


def test_the_digest_names_the_work_and_not_who_waits_for_it() -> None:
    owned = job(owner={"apiVersion": "v1", "kind": "Pod", "name": "step", "uid": "1"})
    digests = [manifest(it, "pytorchjob")["metadata"]["annotations"][DIGEST] for it in (job(), owned, job(num_workers=2))]
    assert digests[0] == digests[1] != digests[2]


def test_names_and_labels_are_what_kubernetes_takes() -> None:
    name = job_name("train", "0a1b2c3d-run", "task")
    assert name == job_name("train", "0a1b2c3d-run", "task") != job_name("train", "0a1b2c3d-run", "another")
    assert name != job_name("train", "another", "task")
    assert name.startswith("adapt-train-")
    for kind in get_args(JobKind):
        manifest(job(name=name, num_workers=10_000), kind)
    assert label_value("c0ffee-1") == "c0ffee-1"
    assert len(label_value("{{$.pipeline_job_uuid}}")) == 40


@pytest.mark.parametrize(("kind", "longest"), [("pytorchjob", 63 - len("-worker-0")), ("trainjob", 48)])
def test_a_name_that_makes_too_long_names_of_pods_is_refused(kind: JobKind, longest: int) -> None:
    manifest(job(name="a" * longest), kind)
    with pytest.raises(UserError, match="makes names of pods that are too long: shorten it by 1 characters"):
        manifest(job(name="a" * (longest + 1)), kind)
    with pytest.raises(UserError, match="shorten it by 1 characters"):
        manifest(job(name="a" * longest, num_workers=11), kind)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
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
