"""What the doctor says of a cluster where all is well, and of one where a single thing is not."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from cluster_stub import CONTROLLER, HERE, JOBS, NAMESPACE, SECRET_VALUE, Answer, Cluster, forbidden, node, status
from manifests import pod_specs
from servers import BUCKET, mlflow_server, s3_server
from support import ROOT, compiled_spec, run_module

from components.doctor.finding import Finding, Row, markdown, row_within
from components.doctor.room import STEPS
from components.doctor.stage import doctor
from components.launch.access import NEEDED, RESOURCES, missing
from components.launch.api import connect
from components.storage import s3
from pipelines import resources
from pipelines.doctor import doctor as pipeline

WEBHOOK_DOWN = status(
    500,
    "InternalError",
    'Internal error occurred: failed calling webhook "validator.pytorchjob.training-operator.kubeflow.org": failed to call '
    'webhook: Post "https://training-operator.kubeflow.svc:443/validate-kubeflow-org-v1-pytorchjob?timeout=10s": dial tcp '
    "10.96.112.7:443: connect: connection refused",
)
NOT_RESTRICTED = status(
    403,
    "Forbidden",
    'pods "adapt-doctor" is forbidden: violates PodSecurity "restricted:latest": seccompProfile (pod or container "doctor" '
    'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")',
)
POLICY = status(403, "Forbidden", 'admission webhook "validate.kyverno.svc" denied the request: no registry but ours')
JOB: dict[str, Any] = {"num_workers": 2, "num_gpus_per_worker": 8, "cpu_per_worker": "1", "memory_per_worker": "4Gi"}
ABSENT = status(404, "NotFound", "not found")


def quota(**limits: str) -> Answer:
    used = {"pods": "3", "requests.memory": "16Gi", "requests.nvidia.com/gpu": "0"}
    hard = {"pods": "100", **limits}
    return 200, {"items": [{"spec": {"hard": hard}, "status": {"hard": hard, "used": used}}]}


def limit_range(**rules: Any) -> Answer:
    """As Kubernetes gives it back: a default limit is the default request too, and the largest the default limit."""
    default = {**rules.get("max", {}), **rules.get("default", {})} if rules.get("type", "Container") == "Container" else {}
    filled = {"default": default, "defaultRequest": {**default, **rules.get("defaultRequest", {})}} if default else {}
    rule = {"type": "Container", **rules, **filled}
    return 200, {"items": [{"metadata": {"name": "sizes"}, "spec": {"limits": [rule]}}]}


DEFAULTS = limit_range(default={"cpu": "2", "memory": "2Gi"}, defaultRequest={"cpu": "100m", "memory": "256Mi"})
TRAIN_JOBS = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"


def no_runtime(kind: str, name: str) -> Answer:
    text = f'{kind}.trainer.kubeflow.org "{name}" not found: specified {kind[0].lower()}{kind[1:]} must be created before the '
    webhook = (
        'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: spec.runtimeRef: Invalid value: {}: '
    )
    return status(403, "Forbidden", f"{webhook}{text}TrainJob is created")


UNKNOWN_FIELD = status(
    400,
    "BadRequest",
    'PyTorchJob in version "v1" cannot be handled as a PyTorchJob: strict decoding error: unknown field "spec.elasticPolicy"',
)


def by_check(rows: list[Row]) -> dict[str, Row]:
    return {each.check: each for each in rows}


def test_where_all_is_well_every_line_says_so_and_nothing_is_created(cluster: Cluster) -> None:
    rows = by_check(doctor(**JOB))
    assert {name: each.status for name, each in rows.items()} == {
        **dict.fromkeys(("API", "job kind", "operator", "rights", "Pod Security", "service account"), "ok"),
        **dict.fromkeys(("settings", "secrets", "GPUs", "quota", "limits", "retries"), "ok"),
        **dict.fromkeys(("storage", "MLflow"), "skipped"),
    }
    assert rows["API"].found.endswith(f"namespace {NAMESPACE}, as system:serviceaccount:{NAMESPACE}:launcher")
    assert "16 nvidia.com/gpu on 2 nodes, place for 2 workers of 8" in rows["GPUs"].found
    created = [(path, query) for method, path, query in cluster.asked if method == "POST" and "reviews" not in path]
    strictly = "dryRun=All&fieldValidation=Strict"  # as the launcher posts
    assert created == [(JOBS, strictly), (f"{HERE}/pods", strictly)]
    ((_, job),) = [each for each in cluster.sent if each[0] == JOBS]
    (pod,) = pod_specs(job)
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "4Gi", "nvidia.com/gpu": "8"}


RED: list[tuple[str, tuple[str, str], Answer, str, str]] = [
    ("job kind", ("GET", "/apis/kubeflow.org/v1"), (404, "404 page not found\n"), "no PyTorchJob (kubeflow.org/v1)", "install"),
    ("job kind", ("GET", "/apis/kubeflow.org/v1"), (200, {"resources": [{"name": "mpijobs"}]}), "no PyTorchJob", "install"),
    ("operator", ("POST", JOBS), WEBHOOK_DOWN, "its webhook does not answer", "kubeflow/training-operator"),
    ("operator", ("POST", JOBS), POLICY, "no registry but ours", "which policy"),
    ("operator", ("POST", JOBS), UNKNOWN_FIELD, "does not know all fields of our jobs", "training-operator 1.9 or later"),
    (
        "operator",
        ("GET", "/apis/apps/v1/namespaces/kubeflow/deployments/training-operator"),
        (200, {"status": {"unavailableReplicas": 1}}),
        "no pod of the Deployment kubeflow/training-operator",
        "look at",
    ),
    ("Pod Security", ("POST", f"{HERE}/pods"), NOT_RESTRICTED, "restricted is enforced; a pod of ours is refused", "policy"),
    ("Pod Security", ("GET", HERE), ABSENT, f"no namespace {NAMESPACE}", "--namespace"),
    ("service account", ("GET", f"{HERE}/serviceaccounts/adapt"), ABSENT, "no service account adapt", "default-editor"),
    ("settings", ("GET", f"{HERE}/configmaps/adapt-config"), ABSENT, "no config map adapt-config", "kubectl apply"),
    ("settings", ("GET", f"{HERE}/configmaps/adapt-ca"), (200, {"data": {"ca.pem": "x"}}), "no ca.crt", "--from-file=ca.crt"),
    ("secrets", ("GET", f"{HERE}/secrets/adapt-s3"), ABSENT, "no secret adapt-s3", "kubectl create secret"),
    (
        "secrets",
        ("GET", f"{HERE}/secrets/adapt-s3"),
        (200, {"data": {"AWS_ACCESS_KEY_ID": SECRET_VALUE}}),
        "adapt-s3 has no AWS_SECRET_ACCESS_KEY",
        "--from-env-file",
    ),
    ("GPUs", ("GET", "/api/v1/nodes"), (200, {"items": []}), "place for 0 workers of 8, 2 are asked for", "fewer"),
    ("GPUs", ("GET", "/api/v1/nodes"), (200, {"items": [node("15")]}), "place for 1 workers of 8, 2 are", "fewer"),
    ("quota", ("GET", f"{HERE}/resourcequotas"), quota(pods="4"), "pods: 2 asked for, 3 of 4 used", "quota"),
    ("quota", ("GET", f"{HERE}/resourcequotas"), quota(**{"count/pods": "1"}), "count/pods: 2 asked for, 0 of 1", "quota"),
    (
        "quota",
        ("GET", f"{HERE}/resourcequotas"),
        quota(**{"requests.memory": "20Gi"}),
        "requests.memory: 8Gi asked for, 16Gi of 20Gi used",
        "quota",
    ),
    ("quota", ("GET", f"{HERE}/resourcequotas"), quota(**{"limits.cpu": "1500m"}), "limits.cpu: 2 asked for", "quota"),
    (
        "quota",
        ("GET", f"{HERE}/resourcequotas"),
        quota(**{"requests.nvidia.com/gpu": "8"}),
        "requests.nvidia.com/gpu: 16 asked for, 0 of 8 used",
        "quota",
    ),
    (
        "limits",
        ("GET", f"{HERE}/limitranges"),
        limit_range(max={"memory": "8Gi"}),
        "train would be refused: its memory limit is 16Gi, and at most 8Gi may be that of a container",
        "--resources",
    ),
    (
        "limits",
        ("GET", f"{HERE}/limitranges"),
        limit_range(type="Pod", max={"cpu": "6"}),
        "train would be refused: its cpu limit is 8, and at most 6 may be that of a pod",
        "--resources",
    ),
    (
        "limits",
        ("GET", f"{HERE}/limitranges"),
        limit_range(min={"memory": "100Mi"}, default={"memory": "2Gi"}),
        "Kubeflow's driver would be refused: its memory request is 64Mi, and at least 100Mi must be that of a container",
        "ask who runs the cluster",
    ),
    (
        "limits",
        ("GET", f"{HERE}/limitranges"),
        limit_range(maxLimitRequestRatio={"cpu": "40"}, default={"cpu": "1"}),
        "train would be refused: its cpu limit 8 is more than 40 times its request 100m",
        "--resources",
    ),
]


@pytest.mark.parametrize(("check", "asked", "answer", "found", "mend"), RED)
def test_a_single_thing_amiss_is_a_single_red_line_with_what_to_do(
    cluster: Cluster, check: str, asked: tuple[str, str], answer: Answer, found: str, mend: str
) -> None:
    cluster.answers["GET", f"{HERE}/limitranges"] = DEFAULTS
    cluster.answers[asked] = answer
    rows = doctor(service_account="adapt", **JOB)
    red = [each for each in rows if each.status == "failed"]
    assert [each.check for each in red] == [check], red
    assert found in red[0].found
    assert mend in red[0].mend


def test_keys_may_be_missing_where_aws_can_know_the_pods_by_their_service_account(cluster: Cluster) -> None:
    cluster.answers["GET", f"{HERE}/secrets/adapt-s3"] = ABSENT
    cluster.answers["GET", f"{HERE}/configmaps/adapt-config"] = (200, {"data": {"AWS_REGION": "eu-west-1"}})
    row = by_check(doctor(**JOB))["secrets"]
    assert (row.status, row.found) == ("warning", "there is no secret adapt-s3")


def limits(cluster: Cluster, ranges: Answer, **job: Any) -> Row:
    cluster.answers["GET", f"{HERE}/limitranges"] = ranges
    return by_check(doctor(**job))["limits"]


def test_a_quota_refuses_what_says_no_size_where_nothing_gives_it_one(cluster: Cluster) -> None:
    nothing: Answer = (200, {"items": []})
    cluster.answers["GET", f"{HERE}/resourcequotas"] = quota(**{"limits.memory": "64Gi", "cpu": "64"})
    said = limits(cluster, nothing, **JOB)
    assert said.status == "failed"
    assert said.found.startswith("Argo's init and wait would be refused: a quota wants requests.cpu, limits.memory of every")
    assert "worker" not in said.found
    assert said.mend.startswith("give the namespace a LimitRange")
    said = limits(cluster, nothing)
    assert "a training worker would be refused" in said.found
    assert "--memory-per-worker" in said.mend
    assert limits(cluster, DEFAULTS, **JOB).status == "ok"
    executor = "resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {cpu: 500m, memory: 512Mi}}"
    cluster.answers["GET", CONTROLLER] = (200, {"data": {"config": f"executor:\n  {executor}"}})
    assert limits(cluster, nothing, **JOB).status == "ok"
    cluster.answers["GET", CONTROLLER] = forbidden("get", "configmaps", where='in the namespace "kubeflow"')
    assert limits(cluster, nothing, **JOB).status == "warning"  # it may have been told a size
    for_some = {"spec": {"hard": {"limits.cpu": "1"}, "scopes": ["BestEffort"]}, "status": {"hard": {"limits.cpu": "1"}}}
    cluster.answers["GET", f"{HERE}/resourcequotas"] = (200, {"items": [for_some]})
    assert limits(cluster, nothing).status == "ok"


def test_a_worker_without_a_size_gets_what_is_left_to_it(cluster: Cluster) -> None:
    said = limits(cluster, limit_range(default={"memory": "512Mi"}))
    assert said.status == "failed"
    assert "a training worker that asks for no memory gets 512Mi, and would be killed" in said.found
    assert limits(cluster, limit_range(default={"memory": "512Mi"}), **JOB).status == "ok"
    said = limits(cluster, limit_range(default={"cpu": "500m"}))
    assert (said.status, said.mend) == ("warning", "give --cpu-per-worker and --memory-per-worker")
    assert "gets 500m, and would crawl" in said.found
    said = limits(cluster, limit_range(max={"memory": "32Gi"}), cpu_per_worker="4", memory_per_worker="64Gi")
    assert (
        said.found
        == "a training worker would be refused: its memory limit is 64Gi, and at most 32Gi may be that of a container"
    )


def test_a_look_that_the_role_does_not_grant_is_skipped(cluster: Cluster) -> None:
    cluster.answers["GET", f"{HERE}/limitranges"] = forbidden("list", "limitranges")
    cluster.denied = {("list", "limitranges"), ("list", "resourcequotas")}
    rows = by_check(doctor())
    assert (rows["limits"].status, rows["limits"].found) == ("skipped", "needs the right to list limitranges")
    assert rows["rights"].status == "ok"  # no job needs them


def test_the_steps_ask_for_what_is_compiled_in() -> None:
    compiled = {
        ((each.cpu_request, each.memory_request), (each.cpu_limit, each.memory_limit)) for each in resources.DEFAULTS.values()
    }
    known = {tuple((each[side]["cpu"], each[side]["memory"]) for side in ("requests", "limits")) for each in STEPS.values()}
    assert compiled == known


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"workflowDefaults": "spec: {templateDefaults: {retryStrategy: {limit: 2, retryPolicy: OnError}}}"}, "is not tried"),
        ({"config": "workflowDefaults: {spec: {retryStrategy: {limit: 2}}}"}, "OnFailure, limit 2 .* is tried again too"),
        ({"executor": "imagePullPolicy: IfNotPresent"}, "adds none"),
        (None, "cannot be read: needs the right to get configmaps in namespace kubeflow"),
        (ABSENT, "there is no config map workflow-controller-configmap in namespace kubeflow"),
    ],
)
def test_what_kubeflow_tries_again_is_told(cluster: Cluster, settings: Any, found: str) -> None:
    unread = settings or forbidden("get", "configmaps", where='in the namespace "kubeflow"')
    cluster.answers["GET", CONTROLLER] = (200, {"data": settings}) if isinstance(settings, dict) else unread
    said = by_check(doctor())["retries"]
    assert said.status == ("ok" if isinstance(settings, dict) else "skipped")
    assert re.search(found, said.found), said


def test_a_runtime_that_is_not_there_is_named_with_what_to_apply(cluster: Cluster) -> None:
    cluster.answers["POST", TRAIN_JOBS] = no_runtime("TrainingRuntime", "adapt-torch")
    said = by_check(doctor(kind="trainjob"))["operator"]
    assert (said.status, said.found) == ("failed", "there is no TrainingRuntime adapt-torch")
    assert "k8s/components/trainer" in said.mend
    cluster.answers["POST", TRAIN_JOBS] = no_runtime("ClusterTrainingRuntime", "torch-distributed")
    said = by_check(doctor(kind="trainjob", training_runtime="torch-distributed"))["operator"]
    assert said.found == "there is no ClusterTrainingRuntime torch-distributed"
    assert "kubectl get clustertrainingruntimes" in said.mend
    reference = [body["spec"]["runtimeRef"] for path, body in cluster.sent if path == TRAIN_JOBS]
    assert [each["name"] for each in reference] == ["adapt-torch", "torch-distributed"]


def test_a_size_that_is_left_open_asks_for_none(cluster: Cluster) -> None:
    cluster.answers["GET", f"{HERE}/resourcequotas"] = quota(**{"requests.memory": "16Gi", "requests.cpu": "0"})
    assert by_check(doctor(cpu_per_worker="", memory_per_worker=""))["quota"].status == "ok"


def test_a_kind_that_the_cluster_does_have_is_named(cluster: Cluster) -> None:
    cluster.answers["GET", "/apis/kubeflow.org/v1"] = (404, "404 page not found\n")
    cluster.answers["GET", "/apis/trainer.kubeflow.org/v1alpha1"] = (200, {"resources": [{"name": "trainjobs"}]})
    assert "--kind trainjob" in by_check(doctor())["job kind"].mend
    rows = by_check(doctor(kind="trainjob"))
    assert rows["job kind"].status == "ok"


def test_a_missing_right_is_named_and_what_needs_it_is_skipped(cluster: Cluster) -> None:
    cluster.denied = {("delete", "pytorchjobs"), ("get", "pods/log")}
    cluster.answers["GET", "/api/v1/nodes"] = forbidden("list", "nodes", where="at the cluster scope")
    cluster.answers["GET", f"{HERE}/secrets/adapt-s3"] = forbidden("get", "secrets")
    cluster.answers["POST", JOBS] = forbidden("create", "pytorchjobs", "kubeflow.org")
    cluster.answers["POST", f"{HERE}/pods"] = forbidden("create", "pods")
    rows = by_check(doctor(num_gpus_per_worker=1))
    assert [name for name, each in rows.items() if each.status == "failed"] == ["rights"]
    assert "delete pytorchjobs.kubeflow.org, get pods/log" in rows["rights"].found
    assert (rows["GPUs"].status, rows["GPUs"].found) == ("skipped", "needs the right to list nodes")
    assert (rows["secrets"].status, rows["secrets"].found) == ("skipped", "needs the right to get secrets")
    assert (rows["operator"].status, rows["operator"].found) == (
        "skipped",
        "needs the right to create pytorchjobs.kubeflow.org",
    )
    assert rows["Pod Security"].status == "ok"  # by the namespace's label
    cluster.answers["GET", HERE] = forbidden("get", "namespaces")
    assert by_check(doctor())["Pod Security"].status == "skipped"


def test_rights_are_the_service_accounts_where_one_may_ask_for_them(cluster: Cluster) -> None:
    cluster.denied = {("create", "pytorchjobs")}
    assert by_check(doctor(service_account="adapt"))["rights"].found == "adapt may not create pytorchjobs.kubeflow.org"
    cluster.denied = set()
    reviews = f"/apis/authorization.k8s.io/v1/namespaces/{NAMESPACE}/localsubjectaccessreviews"
    cluster.answers["POST", reviews] = forbidden("create", "localsubjectaccessreviews", "authorization.k8s.io")
    rights = by_check(doctor(service_account="adapt"))["rights"]
    assert (rights.status, rights.found) == ("warning", "you may do all that the launcher does")
    assert "nothing of adapt" in rights.mend


def test_the_service_account_itself_is_asked_where_one_may_have_a_token_of_it(cluster: Cluster) -> None:
    grant = ("POST", f"{HERE}/serviceaccounts/adapt/token")
    cluster.answers[grant] = (201, {"status": {"token": "of-adapt"}})
    reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    cluster.tokens["of-adapt"] = {
        ("POST", reviews): (201, {"status": {"allowed": False}}),
        ("POST", JOBS): POLICY,
        ("GET", f"{HERE}/secrets/adapt-s3"): forbidden("get", "secrets"),
    }
    rows = by_check(doctor(service_account="adapt", **JOB))
    assert "then as adapt, by a token for ten minutes" in rows["API"].found
    assert rows["rights"].found.startswith("adapt may not create pytorchjobs.kubeflow.org")
    assert rows["operator"].status == "failed"
    assert rows["secrets"].status == "ok"  # it may not look itself, and need not
    (asked,) = [body for path, body in cluster.sent if path == grant[1]]
    assert asked["spec"]["expirationSeconds"] == 600
    assert "by a token" not in by_check(doctor(**JOB))["API"].found


def test_only_the_kind_that_is_asked_after_needs_rights(cluster: Cluster) -> None:
    cluster.denied = {(verb, resource) for verb, _, resource, _ in NEEDED}
    lacking = missing(connect(), "trainjob")
    assert "create trainjobs.trainer.kubeflow.org" in lacking
    assert not [each for each in lacking if "pytorchjobs" in each]
    assert {group for _, group, _, _ in NEEDED} == {"", *(group for group, _ in RESOURCES.values())}


def test_no_value_of_a_secret_is_printed(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.answers["GET", f"{HERE}/secrets/adapt-s3"] = (200, {"data": {"AWS_ACCESS_KEY_ID": SECRET_VALUE}})
    doctor(json=True)
    done = run_module("components.doctor", "--tracking-uri", "http://me:hunter2@127.0.0.1:9")
    said = capsys.readouterr().out + done.stdout + done.stderr
    assert said.count("adapt-s3 has no AWS_SECRET_ACCESS_KEY") == 2
    assert "MLflow at http://127.0.0.1:9 does not answer" in said
    assert SECRET_VALUE not in said
    assert "hunter2" not in said


def test_the_table_is_aligned_and_the_exit_code_tells(cluster: Cluster) -> None:
    done = run_module("components.doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert {line[27] for line in done.stdout.splitlines()} == {" "}
    assert all(line[28] != " " for line in done.stdout.splitlines())
    cluster.answers["POST", JOBS] = WEBHOOK_DOWN
    done = run_module("components.doctor", "--json")
    assert (done.returncode, done.stderr) == (2, "error: 1 of 14 checks failed: operator\n")
    (red,) = [each for each in json.loads(done.stdout) if each["status"] == "failed"]
    assert red.keys() == {"check", "status", "found", "mend"}


def test_a_token_that_is_not_valid_and_an_api_that_is_away_are_one_line_each(cluster: Cluster) -> None:
    cluster.log_in("expired")
    rows = doctor()
    assert (rows[0].status, rows[0].found) == ("failed", "401 Unauthorized")
    assert "log in again" in rows[0].mend
    cluster.server.shutdown()
    cluster.server.server_close()
    rows = doctor()
    assert [each.check for each in rows] == ["API", "storage", "MLflow"]
    assert rows[0].status == "failed"
    assert "does not answer" in rows[0].found


@pytest.mark.parametrize("wrong", [["--kind", "mpijob"], ["--memory-per-worker", "lots"], ["--knd", "x"]])
def test_a_wrong_question_is_one_line(cluster: Cluster, wrong: list[str]) -> None:
    done = run_module("components.doctor", *wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_check_that_hangs_is_left_behind() -> None:
    release = threading.Event()

    def hang() -> Finding:
        release.wait(30)
        return Finding("ok", "late")

    started = time.monotonic()
    found = row_within(0.2, "storage", hang)
    release.set()
    assert time.monotonic() - started < 10
    assert (found.status, found.found) == ("failed", "no answer within 0 s")


def test_a_bug_in_a_check_is_not_swallowed() -> None:
    def broken() -> Finding:
        raise KeyError("metadata")

    with pytest.raises(KeyError):
        row_within(5, "storage", broken)


def test_the_markdown_holds_whatever_was_said() -> None:
    rows = [Row("operator", "failed", 'it said "a|b"\nand more', "ask")]
    assert markdown(rows).splitlines()[2] == r'| failed | operator | it said "a\|b" and more | ask |'


def test_two_pods_reach_each_other_and_are_deleted(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.doctor.rendezvous.POLL_SECONDS", 0.1)
    found = by_check(doctor(rendezvous=True))["rendezvous"]
    assert found.status == "ok", found
    assert "each pod reached the other" in found.found
    assert len(cluster.pods) == 2
    assert sorted(cluster.deleted) == sorted(cluster.pods)


def test_the_pods_are_as_large_as_the_jobs(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.doctor.rendezvous.POLL_SECONDS", 0.1)

    def sizes(num_workers: int) -> list[Any]:
        cluster.sent.clear()
        assert by_check(doctor(rendezvous=True, **{**JOB, "num_workers": num_workers}))["rendezvous"].status == "ok"
        pods = [body["spec"]["containers"][0] for path, body in cluster.sent if path == f"{HERE}/pods"][1:]  # after the dry run
        assert {each["imagePullPolicy"] for each in pods} == {"IfNotPresent"}
        return [each["resources"] for each in pods]

    asked = {"cpu": "1", "memory": "4Gi", "nvidia.com/gpu": "8"}
    assert sizes(2) == [{"requests": asked, "limits": asked}] * 2
    large, small = sizes(1)
    assert large == {"requests": asked, "limits": asked}
    assert small["limits"] == {"cpu": "500m", "memory": "256Mi"}  # a job of one needs the place of one


def test_the_second_pod_is_started_when_the_first_runs(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when it has an address: its image may take minutes yet, and the second would give up."""
    monkeypatch.setattr("components.doctor.rendezvous.POLL_SECONDS", 0.1)
    monkeypatch.setattr("components.doctor.rendezvous.SECONDS", 1.0)
    cluster.answers["GET", "pod"] = in_a_pod({"waiting": {"reason": "ContainerCreating"}}, podIP="127.0.0.1")
    assert "not done after 1 s" in by_check(doctor(rendezvous=True))["rendezvous"].found
    assert len(cluster.pods) == 1


def test_pods_that_no_node_takes_are_given_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.doctor.rendezvous.POLL_SECONDS", 0.1)
    monkeypatch.setattr("components.doctor.rendezvous.UNSCHEDULABLE_SECONDS", 0.5)
    text = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    unmet = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}
    cluster.answers["GET", "pod"] = (200, {"status": {"phase": "Pending", "conditions": [unmet]}})
    started = time.monotonic()
    said = by_check(doctor(rendezvous=True, **JOB))["rendezvous"]
    assert time.monotonic() - started < 60
    assert said.status == "failed"
    assert said.found.endswith(f"has had no place for 0 s: {text}")
    assert "autoscaler" in said.mend
    assert cluster.deleted == list(cluster.pods)


def in_a_pod(state: dict[str, Any], **more: Any) -> Answer:
    return 200, {"status": {"phase": "Pending", "containerStatuses": [{"state": state}], **more}}


@pytest.mark.parametrize(
    ("answer", "found", "mend"),
    [
        (
            in_a_pod({"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x": not found'}}),
            'ImagePullBackOff Back-off pulling image "x": not found',
            "push the image",
        ),
        (
            in_a_pod({"terminated": {"exitCode": 1, "message": "nobody connected to 10.0.0.7:29500\n"}}, phase="Failed"),
            "nobody connected to 10.0.0.7:29500",
            "NetworkPolicy",
        ),
        (
            (200, {"status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]}}),
            "not done after 1 s: adapt-doctor-",
            "make room",
        ),
    ],
)
def test_pods_that_do_not_meet_say_why_and_are_deleted(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, answer: Answer, found: str, mend: str
) -> None:
    monkeypatch.setattr("components.doctor.rendezvous.POLL_SECONDS", 0.1)
    monkeypatch.setattr("components.doctor.rendezvous.SECONDS", 1.0)
    cluster.answers["GET", "pod"] = answer
    said = by_check(doctor(rendezvous=True))["rendezvous"]
    assert said.status == "failed"
    assert found in said.found
    assert mend in said.mend
    assert cluster.deleted == list(cluster.pods)


def test_pods_are_not_started_where_they_could_not_be_deleted(cluster: Cluster) -> None:
    cluster.denied = {("delete", "pods")}
    said = by_check(doctor(rendezvous=True))["rendezvous"]
    assert (said.status, said.found) == ("skipped", "needs the right to delete pods")
    assert not cluster.pods


def test_a_doctor_that_is_stopped_deletes_its_pods(cluster: Cluster) -> None:
    cluster.answers["GET", "pod"] = in_a_pod({"waiting": {"reason": "ContainerCreating"}})
    command = [sys.executable, "-m", "components.doctor", "--rendezvous"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(300):
            if cluster.pods:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    assert cluster.deleted == list(cluster.pods) != []


def test_storage_is_asked_by_its_own_check(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.errors import TryAgainError, UserError

    asked: list[str] = []
    storage: Any = type(sys)("components.storage.transfer")
    storage.check = asked.append
    monkeypatch.setitem(sys.modules, "components.storage.transfer", storage)
    monkeypatch.setattr("components.storage.transfer", storage, raising=False)
    assert by_check(doctor(uri="s3://glue/runs"))["storage"].status == "ok"
    assert asked == ["s3://glue/runs"]

    def refuse(error: Exception) -> Callable[[str], None]:
        def check(uri: str) -> None:
            raise error

        return check

    for error in (UserError("s3://glue: AccessDenied: give other keys"), TryAgainError("s3://glue does not answer")):
        storage.check = refuse(error)
        said = by_check(doctor(uri="s3://glue/runs"))["storage"]
        assert (said.status, said.found) == ("failed", str(error))


def test_mlflow_answers_or_does_not(cluster: Cluster, tracking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "")  # the doctor sets them: put back at the end
    said = by_check(doctor(tracking_uri=tracking))["MLflow"]
    assert (said.status, said.found) == ("ok", tracking)
    said = by_check(doctor(tracking_uri="http://127.0.0.1:9"))["MLflow"]
    assert said.status == "failed"
    assert "MLflow at http://127.0.0.1:9 does not answer" in said.found


def test_no_bucket_is_made_by_looking(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(tmp_path / "s3") as keys:
        for name, value in keys.items():
            monkeypatch.setenv(name, value)
        said = by_check(doctor(uri="s3://nobody-has-it/runs"))["storage"]
        assert said.status == "failed"
        assert "has no bucket 'nobody-has-it': create it, or mend the URI" in said.found
        assert by_check(doctor(uri=f"s3://{BUCKET}/runs"))["storage"].status == "ok"
        assert [each["Name"] for each in s3.client().list_buckets()["Buckets"]] == [BUCKET]


@pytest.mark.slow
def test_real_servers_are_asked(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("components.storage.transfer")
    with s3_server(tmp_path / "s3") as keys, mlflow_server(tmp_path / "mlflow") as uri:
        place = ["--uri", f"s3://{BUCKET}/runs", "--tracking-uri", uri]
        for name, value in keys.items():
            monkeypatch.setenv(name, value)
        done = run_module("components.doctor", *place, "--json")
        rows = {each["check"]: each for each in json.loads(done.stdout)}
        assert (rows["storage"]["status"], rows["MLflow"]["status"]) == ("ok", "ok"), rows
        assert rows["MLflow"]["found"] == f"{uri}, MLflow {mlflow.__version__}"
        done = run_module("components.doctor", *place, "--json", AWS_SECRET_ACCESS_KEY="wrong")
        rows = {each["check"]: each for each in json.loads(done.stdout)}
        assert rows["storage"]["status"] == "failed"


def test_as_a_pipeline_it_shows_the_table_and_then_fails(cluster: Cluster, tmp_path: Path) -> None:
    cluster.answers["POST", JOBS] = WEBHOOK_DOWN
    program = f"""
from kfp import local
from pipelines.doctor import doctor
local.init(local.SubprocessRunner(use_venv=False), pipeline_root={str(tmp_path / "runs")!r})
doctor(num_workers=2)
"""
    (tmp_path / "run.py").write_text(program)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py")], capture_output=True, text=True, timeout=120, cwd=ROOT, env={**os.environ}
    )
    assert done.returncode != 0
    assert "error: checks failed: operator; the doctor step's findings say what to do" in done.stdout, done.stdout + done.stderr
    table = next((tmp_path / "runs").glob("*/doctor/findings")).read_text()
    assert "| failed | operator | its webhook does not answer" in table


def test_the_compiled_pipeline_takes_the_same_parameters(tmp_path: Path) -> None:
    inputs = compiled_spec(pipeline, tmp_path)["root"]["inputDefinitions"]["parameters"]
    assert {"kind", "train_image", "uri", "num_workers", "num_gpus_per_worker", "rendezvous"} < set(inputs)
    assert all(each["isOptional"] and each["description"] for each in inputs.values())
