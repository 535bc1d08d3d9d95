"""What a job in a queue of Kueue waits for."""

from pathlib import Path
from typing import Any

import pytest
from cluster_stub import NAMESPACE, Cluster, forbidden
from launcher import absent, api_of, job, limits_of
from replay import replay
from scenarios import SCENARIOS

from components.launch.api import connect
from components.launch.job import QUEUE_LABEL
from components.launch.lifecycle import Ran, run_once
from components.launch.queueing import JOB_LABEL, Admission, never_admitted
from components.launch.state import State
from components.launch.verdict import Clock, Limits, decide
from components.launch.wording import standing

WAITS = "couldn't assign flavors to pod set worker: insufficient unused quota for cpu in flavor default, 400m more needed"
NO_FIT = "couldn't assign flavors to pod set worker: insufficient quota for cpu in flavor default, "
TOO_LARGE = f"{NO_FIT}request > maximum capacity (4 > 1500m)"
NEWER = f"{NO_FIT}previously considered podsets requests (0) + current podset request (4) > maximum capacity (1500m)"
ONE_OF_TWO = f"{TOO_LARGE}, insufficient unused quota for cpu in flavor spot, 2 more needed"
OF_TWO = f"{WAITS}, insufficient quota for nvidia.com/gpu in flavor default, request > maximum capacity (8 > 0)"


def workloads(version: str) -> str:
    return f"/apis/kueue.x-k8s.io/{version}/namespaces/{NAMESPACE}/workloads"


def suspended(queue: str = "team", is_suspended: bool = True, kind: str = "pytorchjob") -> State:
    spec: dict[str, Any] = {"trainer": {"numNodes": 1}, "suspend": is_suspended}
    if kind == "pytorchjob":
        spec = {"pytorchReplicaSpecs": {"Master": {"replicas": 1}}, "suspend": is_suspended}
    labels = {QUEUE_LABEL: queue} if queue else {}
    return State(job={"metadata": {"uid": "u-1", "labels": labels}, "spec": spec})


def answer(message: str) -> tuple[int, Any]:
    reserved = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": message}
    return 200, {"items": [{"status": {"conditions": [{"type": "Admitted", "status": "False", "message": "no"}, reserved]}}]}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    there = Cluster(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(there.config))
    return there


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
@pytest.mark.parametrize("kind", ["pytorchjob", "trainjob"])
def test_a_waiting_job_says_what_its_queue_lacks(cluster: Cluster, version: str, kind: str) -> None:
    for other in ("v1beta1", "v1beta2"):
        cluster.answers["GET", workloads(other)] = (404, "404 page not found\n")
    cluster.answers["GET", workloads(version)] = answer(WAITS)
    state = suspended(kind=kind)
    with cluster.running():
        admission = Admission(connect(NAMESPACE), state)
        admission.heed(100.0)
        assert standing(state) == f"suspended: waits to be admitted: {WAITS}"
        assert decide(state, Clock(), Limits(), 100.0) is None
        asked = len(cluster.asked)
        admission.heed(105.0)
        assert len(cluster.asked) == asked  # it is not asked all the time
        cluster.answers["GET", workloads(version)] = answer(TOO_LARGE)
        admission.heed(111.0)
        verdict = decide(state, Clock(), Limits(), 111.0)
    assert f"labelSelector={JOB_LABEL}%3Du-1".replace("/", "%2F") in cluster.asked[-1][2]
    assert verdict
    assert verdict.outcome == "user"
    assert "request > maximum capacity (4 > 1500m): ask for less (num_workers, cpu_per_worker" in verdict.cause
    assert state.job
    state.job["spec"]["suspend"] = False
    admission.heed(112.0)
    assert state.waits_for == ""


@pytest.mark.parametrize(
    ("message", "never"),
    [
        (WAITS, False),
        (TOO_LARGE, True),
        (NEWER, True),
        (ONE_OF_TWO, False),
        (OF_TWO, True),
        ("LocalQueue team doesn't exist", True),
        ("ClusterQueue team is inactive", False),
        ("", False),
    ],
)
def test_what_can_never_be_is_told_from_what_is_not_yet(message: str, never: bool) -> None:
    assert never_admitted(message) == never


def test_where_one_may_not_look_or_there_is_no_queue_it_only_waits(cluster: Cluster) -> None:
    cluster.answers["GET", workloads("v1beta2")] = (404, "404 page not found\n")
    cluster.answers["GET", workloads("v1beta1")] = forbidden("list", "workloads", "kueue.x-k8s.io")
    state, without = suspended(), suspended(queue="")
    with cluster.running():
        api = connect(NAMESPACE)
        admission = Admission(api, state)
        admission.heed(0.0)
        asked = len(cluster.asked)
        admission.heed(60.0)  # nor does it ask again
        Admission(api, without).heed(0.0)
    assert len(cluster.asked) == asked == 2
    assert standing(state) == standing(without) == "suspended: waits to be admitted"


def test_the_launcher_ends_a_job_that_is_larger_than_its_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = next(each for each in SCENARIOS if each.name == "12-suspended-then-resumed")
    monkeypatch.setattr(Admission, "_message", lambda self: TOO_LARGE)
    with replay(scenario.name, speed=30.0) as cluster:
        ran = run_once(api_of(cluster), job(scenario.ranks, queue="team"), scenario.kind, limits_of(scenario), tmp_path, absent)
    assert isinstance(ran, Ran)
    assert ran.verdict.outcome == "user"
    assert "its queue will never admit it" in ran.verdict.cause
    assert cluster.left_behind() == []
    assert f"suspended: waits to be admitted: {TOO_LARGE}" in (tmp_path / "job.log").read_text()
