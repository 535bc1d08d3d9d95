"""The replayed cluster itself: what it answers, streams and breaks off."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from apiserver import Cluster
from recorded import RECORDINGS, load
from replay import refusing, replay
from scenarios import REFUSALS, SCENARIOS

JOBS = "/apis/kubeflow.org/v1/namespaces/team/pytorchjobs"
PODS = "/api/v1/namespaces/team/pods"
EVENTS = "/api/v1/namespaces/team/events"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
OURS = "labelSelector=training.kubeflow.org/job-name%3Dtune"
MASTER = {"template": {"metadata": {"labels": {"team": "a"}}}}
JOB = {
    "apiVersion": "kubeflow.org/v1",
    "kind": "PyTorchJob",
    "metadata": {"name": "tune", "labels": {"run": "7"}},
    "spec": {"pytorchReplicaSpecs": {"Master": MASTER, "Worker": {}}},
}


def ask(cluster: Cluster, path: str, method: str = "GET", body: object = None, timeout: float = 20, **headers: str) -> Any:
    """The status and the body, parsed where it is JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/merge-patch+json", **headers}
    request = urllib.request.Request(cluster.url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            code, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        code, text = error.code, error.read().decode()
    return code, json.loads(text) if text.startswith("{") and "\n{" not in text else text


def lines(cluster: Cluster, path: str) -> Iterator[str]:
    with urllib.request.urlopen(cluster.url + path, timeout=20) as stream:
        for line in stream:
            yield line.decode().rstrip("\n")


def events(cluster: Cluster, path: str) -> list[Any]:
    return [json.loads(line) for line in lines(cluster, path)]


def test_every_recording_has_its_expectation() -> None:
    recorded = {path.name.removesuffix(".json.xz") for path in RECORDINGS.glob("*.json.xz")}
    requests_only = {"17-duplicate-create", "19-watch-expired", "20-log-follow"}
    assert {one.name for one in SCENARIOS} | {one.scenario for one in REFUSALS} | requests_only == recorded
    for refusal in REFUSALS:
        (answer,) = [one for one in load(refusal.scenario)["answers"] if one["name"] == refusal.answer]
        assert answer["status"] >= 400


def test_the_recordings_are_free_of_their_first_names() -> None:
    for scenario in SCENARIOS:
        for change in load(scenario.name)["changes"]:
            metadata = change["object"]["metadata"]
            assert metadata["namespace"] == "@NAMESPACE@"
            assert metadata["name"].startswith("@JOB@")


def test_a_job_runs_as_recorded_under_the_client_s_name() -> None:
    with replay("01", speed=100) as cluster:
        code, job = ask(cluster, JOBS, "POST", JOB)
        assert (code, job["metadata"]["name"], job["metadata"]["labels"]) == (201, "tune", {"run": "7"})
        assert "status" not in job
        seen = events(cluster, f"{JOBS}?watch=1&timeoutSeconds=12&resourceVersion={job['metadata']['resourceVersion']}")
        assert [one["object"]["metadata"]["labels"] for one in seen] == [{"run": "7"}] * 7
        assert seen[-1]["object"]["status"]["conditions"][-1]["message"] == "PyTorchJob tune is successfully completed."
        pods = ask(cluster, f"{PODS}?{OURS}")[1]["items"]
        assert [pod["metadata"]["name"] for pod in pods] == ["tune-master-0", "tune-worker-0", "tune-worker-1"]
        assert {pod["status"]["phase"] for pod in pods} == {"Succeeded"}
        assert [pod["metadata"]["labels"].get("team") for pod in pods] == ["a", None, None]
        ours = ask(cluster, f"{EVENTS}?fieldSelector=involvedObject.name=tune,reason=ExitedWithCode")[1]["items"]
        assert "Pod: team.tune-master-0 exited with code 0" in [event["message"] for event in ours]
        assert ask(cluster, f"{JOBS}?labelSelector=run%3D7")[1]["items"]
        assert not ask(cluster, f"{JOBS}?labelSelector=run%3D8")[1]["items"]
        assert cluster.left_behind() == ["tune"]


def test_a_watch_goes_on_exactly_where_another_ended() -> None:
    with replay("14", speed=200) as cluster:
        ask(cluster, JOBS, "POST", JOB)
        parts: list[Any] = []
        while len(parts) < 38 and cluster.moment() < 200:
            version = parts[-1]["object"]["metadata"]["resourceVersion"] if parts else "1001"
            parts += events(cluster, f"{PODS}?watch=1&timeoutSeconds=6&resourceVersion={version}")
        assert parts == events(cluster, f"{PODS}?watch=1&timeoutSeconds=0&resourceVersion=1001")
        recorded = [one for one in load("14")["changes"] if one["resource"] == "pods"]
        assert [one["type"] for one in parts] == [one["type"] for one in recorded]
        assert [one["object"]["status"] for one in parts] == [one["object"]["status"] for one in recorded]


def test_versions_of_the_past_expire_inside_the_stream_and_a_missing_one_lists_first() -> None:
    with replay("01", speed=100) as cluster:
        ask(cluster, JOBS, "POST", JOB)
        cluster.wait_until(2)
        (error,) = events(cluster, f"{PODS}?watch=1&resourceVersion=1")
        assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 410, "Expired")
        first = events(cluster, f"{PODS}?watch=1&timeoutSeconds=1")[:3]
        assert [one["type"] for one in first] == ["ADDED"] * 3
        last = events(cluster, f"{PODS}?watch=1&timeoutSeconds=70&allowWatchBookmarks=true")[-1]
        assert last["type"] == "BOOKMARK"
        assert last["object"]["metadata"] == {"resourceVersion": str(cluster.objects.version())}


def test_a_log_is_followed_to_the_container_s_end_and_goes_on_from_a_time() -> None:
    with replay("03", speed=20) as cluster:
        ask(cluster, JOBS, "POST", JOB)
        log = f"{PODS}/tune-worker-0/log?container=pytorch"
        cluster.wait_until(2)
        assert (
            ask(cluster, log)[1]["message"] == 'container "pytorch" in pod "tune-worker-0" is waiting to start: PodInitializing'
        )
        cluster.wait_until(4)
        first = list(lines(cluster, f"{log}&follow=true&timestamps=true"))
        assert cluster.moment() > 6.7
        text = load("03")["logs"]["@JOB@-worker-0"]
        assert [line.split(" ", 1)[1] for line in first] == text[0].splitlines()
        cluster.skip_to(8)
        assert ask(cluster, f"{log}&previous=true")[1].splitlines() == text[0].splitlines()
        cluster.skip_to(20)
        second = list(lines(cluster, f"{log}&timestamps=true"))
        assert [line.split(" ", 1)[1] for line in second] == text[1].splitlines()
        since = second[2].split(" ")[0]
        rest = list(lines(cluster, f"{log}&timestamps=true&sinceTime={since}"))
        assert second[2:] == rest[-len(second[2:]) :]
        assert list(lines(cluster, f"{log}&tailLines=1&timestamps=true")) == second[-1:]
        cluster.skip_to(26)
        assert ask(cluster, log)[0] == 404


def test_a_lost_node_ends_streams_and_refuses_logs_until_it_is_back() -> None:
    with replay("24b", speed=20) as cluster:
        ask(cluster, JOBS, "POST", JOB)
        cluster.wait_until(1)
        log = f"{PODS}/tune-master-0/log"
        cut = list(lines(cluster, f"{log}?follow=true&timestamps=true"))
        assert len(cut) == 6
        assert ask(cluster, f"{log}?follow=true")[0] == 500
        cluster.skip_to(186)
        assert len(ask(cluster, log)[1].splitlines()) > 150


def test_a_deleted_job_takes_its_pods_with_it() -> None:
    with replay("02", speed=20) as cluster:
        uid = ask(cluster, JOBS, "POST", JOB)[1]["metadata"]["uid"]
        cluster.wait_until(4)
        code, refused = ask(cluster, f"{JOBS}/tune", "DELETE", {"preconditions": {"uid": "another"}})
        assert (code, refused["reason"]) == (409, "Conflict")
        code, job = ask(cluster, f"{JOBS}/tune", "DELETE", {"preconditions": {"uid": uid}, "propagationPolicy": "Foreground"})
        assert (code, job["metadata"]["finalizers"]) == (200, ["foregroundDeletion"])
        assert ask(cluster, JOBS, "POST", JOB)[1]["message"].startswith("object is being deleted: ")
        seen = events(cluster, f"{PODS}?watch=1&timeoutSeconds=4")
        gone = [one["object"] for one in seen if one["type"] == "DELETED"]
        assert [pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for pod in gone] == [143] * 3
        assert ask(cluster, f"{JOBS}/tune")[0] == ask(cluster, f"{JOBS}/tune", "DELETE")[0] == 404
        assert cluster.left_behind() == []
        code, again = ask(cluster, JOBS, "POST", JOB)
        assert code == 201
        assert again["metadata"]["uid"] != uid


def test_a_delete_near_the_recorded_one_is_that_one() -> None:
    with replay("11", speed=20) as cluster:
        ask(cluster, JOBS, "POST", JOB)
        cluster.wait_until(4)
        code, status = ask(cluster, f"{JOBS}/tune", "DELETE", {"propagationPolicy": "Background"})
        assert (code, status["status"], status["details"]["name"]) == (200, "Success", "tune")
        assert ask(cluster, f"{JOBS}/tune")[0] == 404
        cluster.skip_to(38)
        seen = events(cluster, f"{PODS}?watch=1&timeoutSeconds=0&resourceVersion=1001")
        codes = [one["object"]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for one in seen[-6:]]
        assert codes == [137] * 6  # the workers ignored SIGTERM for 30 s


def test_metadata_that_a_client_patched_stays() -> None:
    with replay("01", speed=100) as cluster:
        ask(cluster, JOBS, "POST", JOB)
        patch = {"metadata": {"annotations": {"seen": "1"}, "labels": {"run": None}}}
        assert ask(cluster, f"{JOBS}/tune", "PATCH", patch)[0] == 200
        cluster.wait_until(12)
        metadata = ask(cluster, f"{JOBS}/tune")[1]["metadata"]
        assert (metadata["annotations"], metadata["labels"]) == ({"seen": "1"}, {})


def test_rights_tokens_and_an_absent_operator() -> None:
    with replay("01") as cluster:
        cluster.deny("delete", "pytorchjobs")
        wanted = {"namespace": "team", "verb": "delete", "group": "kubeflow.org", "resource": "pytorchjobs"}
        assert ask(cluster, REVIEWS, "POST", {"spec": {"resourceAttributes": wanted}})[1]["status"] == {"allowed": False}
        wanted |= {"verb": "create"}
        assert ask(cluster, REVIEWS, "POST", {"spec": {"resourceAttributes": wanted}})[1]["status"] == {"allowed": True}
        code, status = ask(cluster, f"{JOBS}/tune", "DELETE")
        recorded = next(one for one in load("16")["answers"] if one["name"] == "delete")
        assert (code, status) == (403, json.loads(recorded["body"].replace("@JOB@", "tune").replace("@NAMESPACE@", "team")))
        cluster.token = "new"
        assert ask(cluster, JOBS)[0] == 401
        assert ask(cluster, JOBS, Authorization="Bearer new")[0] == 200
        cluster.token = None
        assert [one["name"] for one in ask(cluster, "/apis/kubeflow.org/v1")[1]["resources"]] == ["pytorchjobs"]
        cluster.without_crd()
        assert ask(cluster, JOBS, "POST", JOB) == (404, "404 page not found\n")
        assert ask(cluster, "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs")[0] == 404


def test_added_objects_are_served() -> None:
    with replay("01") as cluster:
        owner = {"kind": "Workflow", "name": "adapt-x", "uid": "u"}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "launcher", "namespace": "team", "ownerReferences": [owner]},
        }
        cluster.add("pods", pod)
        assert ask(cluster, f"{PODS}/launcher")[1]["metadata"]["ownerReferences"] == [owner]
        assert cluster.left_behind() == []


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda one: f"{one.scenario}-{one.answer}")
def test_a_refusal_is_the_recorded_one_and_creates_nothing(refusal: Any) -> None:
    with refusing(refusal.scenario, refusal.answer) as cluster:
        code, answer = ask(cluster, JOBS, "POST", JOB)
        assert code >= 400
        assert "@" not in json.dumps(answer)
        if refusal.answer != "resource-not-installed":
            assert all(word in answer["message"] for word in refusal.cause)
        assert ask(cluster, f"{JOBS}/tune")[0] == 404


@pytest.mark.parametrize(("kind", "code"), [("429", 429), ("500", 500), ("503", 503), ("410", 410)])
def test_each_endpoint_fails_once(kind: str, code: int) -> None:
    with replay("01", speed=100) as cluster:
        cluster.fail_each_endpoint_once(kind)
        assert ask(cluster, JOBS, "POST", JOB)[0] == code
        assert ask(cluster, JOBS, "POST", JOB)[0] == 201
        assert [ask(cluster, PODS)[0] for _ in range(2)] == [code, 200]
        if kind == "410":
            assert events(cluster, f"{PODS}?watch=1")[0]["object"]["reason"] == "Expired"
        assert [one.status for one in cluster.requests[:4]] == [code, 201, code, 200]


def test_connections_break_before_within_and_after_an_answer() -> None:
    with replay("01", speed=100) as cluster:
        cluster.fail(2, "reset")
        assert ask(cluster, JOBS)[0] == 200
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected, urllib.error.URLError)):
            ask(cluster, JOBS, "POST", JOB)
        assert cluster.created == []
        cluster.fail(1, "lost")
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected, urllib.error.URLError)):
            ask(cluster, JOBS, "POST", JOB)
        assert len(cluster.created) == 1
        cluster.fail(1, "reset")
        got: list[str] = []
        with pytest.raises((ConnectionError, http.client.IncompleteRead)):
            got.extend(lines(cluster, f"{PODS}?watch=1&timeoutSeconds=9"))
        cluster.fail(1, "timeout")
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            ask(cluster, PODS, timeout=0.2)
        assert time.monotonic() - begun < 5
        assert [one.status for one in cluster.requests] == [200, 0, 0, 200, 0]
        cluster.fail_all("503")
        assert [ask(cluster, PODS)[0] for _ in range(3)] == [503] * 3
        cluster.fail_all()
        assert ask(cluster, PODS)[0] == 200
