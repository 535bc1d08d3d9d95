"""What `make test-cluster` types is what the product takes; what it makes is whole; and its own course, without a cluster."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import place as places
import pytest
import run
import scenes
import yaml
from kubeflow_stub import Kubeflow as Stub
from manifests import needs_kubectl
from place import OWN, Ended, NotHere, Place, launcher_settings, write_overlays
from support import ROOT

from components.errors import UserError
from components.launch.api import Api
from pipelines.command import arguments_of, parsed
from pipelines.kubeflow import Kubeflow
from pipelines.submit import app
from pipelines.table import PIPELINES

SENDING = [name for name in scenes.SCENES if name not in ("overlay", "left behind")]


def api_of(namespace: str) -> Api:
    """Of no cluster."""
    api = Api.__new__(Api)
    api.namespace = namespace
    return api


class Recorder(Place):
    """Looks at what would be sent, and sends nothing. What is asked of the cluster has no answer."""

    def __init__(self) -> None:
        away = "http://127.0.0.1:9"
        super().__init__(api_of("kubeflow"), Kubeflow(away, None), away, "r/s@sha256:0", "r/t@sha256:0", time.monotonic() + 60)
        self.typed: list[dict[str, Any]] = []

    def submit(self, *arguments: str, seconds: float = 900.0) -> Ended:
        self.start(*arguments)
        return Ended(0, "", "r0", 1.0)

    def start(self, *arguments: str) -> str:
        asked = parsed(app, arguments)
        assert asked
        self.typed.append(arguments_of(PIPELINES[asked[0]], asked[1]))
        return "r0"

    def __getattribute__(self, name: str) -> Any:
        if name in ("has", "serves"):
            return lambda *_: True
        if name in ("training", "jobs", "ranks", "wait_for", "delete_pod", "terminate", "workflow_bytes", "stages"):
            return lambda *_, **__: {"workflow_bytes": 0, "training": [{"metadata": {"name": "worker-0"}}]}.get(name, [])
        return super().__getattribute__(name)


@pytest.mark.parametrize("name", SENDING)
def test_what_a_scene_sends_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for helper in ("trained", "step_of", "apply", "kubectl", "log_of_step"):
        monkeypatch.setattr(scenes, helper, lambda *_, **__: "")
    monkeypatch.setattr("scenes.subprocess.run", lambda *_, **__: subprocess.CompletedProcess([], 0, "", ""))
    place = Recorder()
    with contextlib.suppress(AssertionError, StopIteration, ValueError):  # what it would see there is not here
        scenes.SCENES[name](place)
    assert len(place.typed) == (2 if name == "queue" else 1)


def test_there_is_a_scene_for_all_that_was_done_by_hand() -> None:
    assert len(scenes.SCENES) == 18
    assert all(scene.__doc__ for scene in scenes.SCENES.values() if scene.__name__ != "<lambda>")


@pytest.mark.parametrize("is_multi_user", [False, True])
def test_what_it_installs_is_whole(is_multi_user: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_kubectl()
    work = tmp_path / "build/test-cluster"
    (tmp_path / "k8s").symlink_to(ROOT / "k8s")
    monkeypatch.setattr(places, "WORK", work)
    found = []
    for overlay in write_overlays("team-a", is_multi_user, True, f"registry/mlflow@sha256:{'0' * 64}"):
        done = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        found += [document for document in yaml.safe_load_all(done.stdout) if document]
    by_name = {(item["kind"], item["metadata"]["name"]): item for item in found}
    assert by_name["ConfigMap", "adapt-config"]["data"]["MLFLOW_TRACKING_URI"] == f"http://adapt-mlflow.{OWN}:5000"
    (subject,) = by_name["RoleBinding", "adapt"]["subjects"]
    account = "default-editor" if is_multi_user else "pipeline-runner"
    assert (subject["name"], subject["namespace"]) == (account, "team-a")
    assert by_name["TrainingRuntime", "adapt-torch"]["metadata"]["namespace"] == "team-a"
    server = by_name["Deployment", "adapt-mlflow"]
    assert server["metadata"]["namespace"] == OWN
    assert server["spec"]["template"]["spec"]["containers"][0]["image"] == f"registry/mlflow@sha256:{'0' * 64}"
    store = yaml.safe_load(launcher_settings("team-a")["data"]["providers"])["s3"]["default"]
    assert store["endpoint"] == f"adapt-seaweedfs.{OWN}:8333"


def test_suites_and_ends_are_asked_of_kubeflow_as_it_answers() -> None:
    """As far as its API goes: the second suite finds the runs of the first."""
    with Stub().running() as stub:
        place = Place(api_of("kubeflow"), Kubeflow(stub.endpoint, None), stub.endpoint, "r/s:1", "r/t:1", time.monotonic() + 60)
        assert scenes.suite_of_3(place).startswith("three runs and their table")
        assert scenes.suite_of_12(place).startswith("nine more runs and their table")
        assert len(stub.runs) == 3 + 1 + 9 + 1
        run_id = place.start(*scenes.of(place))
        place.terminate(run_id)
        assert place.run(run_id)["state"] == "CANCELED"
        with pytest.raises(AssertionError, match="has ended before train was done: CANCELED"):
            place.has_ended(run_id, "train")


def test_where_there_is_no_cluster_it_says_so_and_nothing_fails(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    command = [sys.executable, "tests/cluster/run.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.startswith("skipped: no cluster: ")


def test_each_scene_has_its_row_whatever_becomes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Place) -> str:
        raise AssertionError("two\nlines")

    def lack(_: Place) -> str:
        raise NotHere("there is no Kueue")

    def stop(place: Place) -> str:
        place.until = 0.0
        return "seen | so"

    monkeypatch.setattr(run, "SCENES", {"a": fail, "b": lack, "c": stop, "d": fail})
    rows = run.tried(Recorder(), ["a", "b", "c", "d"])
    assert [row[:2] for row in rows] == [("a", "failed"), ("b", "skipped"), ("c", "ok"), ("d", "not run")]
    assert rows[0][3] == "AssertionError: two lines"
    run.write(rows, tmp_path)
    assert "| c | ok | 0 | seen / so |" in (tmp_path / "table.md").read_text()


def test_a_scene_that_there_is_not_is_told_first() -> None:
    with pytest.raises(UserError, match="--only dance: there is overlay, doctor"):
        run.try_cluster(only=["dance"])
