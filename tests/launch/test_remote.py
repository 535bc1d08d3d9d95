"""A training step on a cluster, all but the cluster: the step's launcher, a real store, and the command of the job's pods."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from launcher import PLACEMENT, SPEED
from replay import replay
from servers import BUCKET, s3_server
from support import ROOT

from components import cli
from components.artifacts.folders import read_manifest
from components.errors import FailedError, StageError, TryAgainError, UserError
from components.launch import remote
from components.launch.api import Api, Patience, connect
from components.launch.job import Job, job_name, manifest
from components.launch.lifecycle import RankError
from components.launch.placement import Placement, Places
from components.launch.start import launched
from components.storage import transfer
from components.train.settings import Training

GIVEN: dict[str, object] = {"model": "tiny", "method": "scala", "num_updates": 2, "global_batch_size": 32, "seed": 3}
SETTINGS = cli.write(cli.pick(Training, GIVEN))
COMMAND = remote.node_command("train", SETTINGS, {"data": "d"}, "o", "c")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as environment, pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        yield environment


@pytest.fixture(autouse=True)
def own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIPELINE_TASK_ID", "IMAGE", "KUBECONFIG"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIPELINE_RUN_ID", "run-1")


def known(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    """The current context is a cluster at `url`."""
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team-a"}}
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [context]}
    config |= {"clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {}}]}
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
    patience = Patience(pause=0.5 / SPEED, longest=5 / SPEED, watch=1.0)
    monkeypatch.setattr(remote, "connect", lambda: connect(patience=patience))
    return connect(patience=patience)


def places_of(folder: Path, data: Path, base: str) -> Places:
    """As KFP gives them to the step: the paths here, and base/ARTIFACT in the store."""
    return Places(
        inputs={"data": (data, f"{base}/dataset")},
        output=(folder / "trained", f"{base}/trained"),
        logs=(folder / "logs", f"{base}/logs"),
    )


def run_pod(body: dict[str, Any], folder: Path) -> None:
    """What the kubelet would: the container's command, with its plain variables and the operator's."""
    (spec,) = body["spec"]["pytorchReplicaSpecs"].values()
    (container,) = spec["template"]["spec"]["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    operator = {"PET_NNODES": "1", "PET_NPROC_PER_NODE": body["spec"]["nprocPerNode"], "PET_NODE_RANK": "0"}
    folder.mkdir()
    environment = {**os.environ, **variables, **operator, "TMPDIR": str(folder), "RANK": "0", "WORLD_SIZE": "1"}
    _, *command = container["command"]
    subprocess.run([sys.executable, *command], env=environment, cwd=ROOT, check=True)


@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["object store", "shared volume"])
def test_a_job_trains_on_what_the_step_was_given_and_the_model_comes_back(
    shared: bool, store: dict[str, str], tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tokenized("rte")
    places = places_of(tmp_path, data, f"s3://{BUCKET}/runs/shared-{shared}")
    placement = Placement(**PLACEMENT | {"job_storage": str(tmp_path / "volume") if shared else ""})
    if not shared:
        transfer.store(data, places.inputs["data"][1])  # as KFP does
    with replay("01", speed=SPEED) as cluster:
        api = known(cluster.url, tmp_path, monkeypatch)
        task_id = remote.task_id_of(places)
        name = job_name("train", "run-1", task_id)
        inputs, output = remote.exchange(placement, places, name)
        kept = f"{placement.job_storage}/checkpoints" if shared else f"{output}.checkpoints"
        command = remote.node_command("train", SETTINGS, inputs, output, kept)
        job = remote.build_job("train", command, placement, name, "run-1", task_id, None, api)
        run_pod(manifest(job, "pytorchjob"), tmp_path / "pod")  # before the recorded job has begun: its end comes too soon
        with launched("train", SETTINGS, placement, places) as wait:
            wait()
        (created,) = cluster.created
        assert created == manifest(job, "pytorchjob")
        assert cluster.left_behind() == []
    made = read_manifest(tmp_path / "trained", "train")
    assert made["inputs"]["data"] == read_manifest(data, "tokenize")["digest"]
    assert made["made_by"]["pipeline_run_id"] == "run-1"
    assert made["made_by"]["pipeline_task_id"] == task_id
    assert made["made_by"]["job_name"] == name
    if shared:
        assert not (tmp_path / "volume" / name).exists()
    else:
        assert made["origins"]["data"]["uri"] == places.inputs["data"][1]


def test_a_failed_jobs_logs_are_kept_and_a_failure_is_not_taken_for_the_next_trys(
    store: dict[str, str], tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tokenized("rte")
    places = places_of(tmp_path, data, f"s3://{BUCKET}/runs/failed")
    transfer.store(data, places.inputs["data"][1])
    with replay("02", speed=SPEED) as cluster:
        known(cluster.url, tmp_path, monkeypatch)
        for _ in range(2):
            with (
                pytest.raises(FailedError, match=r"worker-1 exited with 1: .*simulated"),
                launched("train", SETTINGS, Placement(**PLACEMENT), places) as wait,
            ):
                wait()
        assert len(cluster.created) == 2
        assert cluster.left_behind() == []
    transfer.fetch(places.logs[1], tmp_path / "kept")
    assert "bug: worker-1 exited with 1" in (tmp_path / "kept" / "job-1" / "job.log").read_text()
    assert "step 4" in (tmp_path / "kept" / "job-1" / "worker-1.1.log").read_text()
    assert not (tmp_path / "trained").exists()


@pytest.mark.parametrize(
    ("error", "settings", "jobs"),
    [
        (RankError("label is no number"), SETTINGS, 0),
        (RankError("label is no number"), SETTINGS.replace("scala", "plain"), 1),
        (UserError("the cluster does not accept our credentials (Unauthorized)"), SETTINGS, 1),
        (UserError("out of memory in worker-0"), SETTINGS, 1),
        (FailedError("worker-1 exited with 1"), SETTINGS, 1),
        (TryAgainError("the pod of worker-1 was evicted"), SETTINGS, 1),
    ],
    ids=["a rank's", "with other settings", "a token that died", "what the cluster lacked", "a bug", "an eviction"],
)
def test_only_a_users_error_that_a_rank_found_is_remembered(
    error: StageError, settings: str, jobs: int, store: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = places_of(tmp_path, tmp_path, f"s3://{BUCKET}/runs/remembered-{tmp_path.name}")
    ran = []

    def run_to_end(api: Api, job: Job, *given: object) -> None:
        ran.append(job.name)
        raise error

    monkeypatch.setattr(remote, "run_to_end", run_to_end)
    with replay("01", speed=SPEED) as cluster:
        known(cluster.url, tmp_path, monkeypatch)
        with pytest.raises(type(error)), launched("train", SETTINGS, Placement(**PLACEMENT), places) as wait:
            wait()
        kind = UserError if isinstance(error, RankError) else type(error)
        with (
            pytest.raises(kind, match=re.escape(str(error))),
            launched("train", settings, Placement(**PLACEMENT), places) as wait,
        ):
            wait()
    assert len(ran) == 1 + jobs


def test_what_may_work_later_is_tried_again_by_the_step_itself(
    store: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = places_of(tmp_path, tmp_path, f"s3://{BUCKET}/runs/again")
    transfer.store(_anything(tmp_path / "whole"), places.output[1])
    placement = Placement(**PLACEMENT | {"attempts": 3, "num_workers": 3, "attempt_pause_seconds": 0.1})
    with replay("14d", "14d", "01", speed=SPEED) as cluster:
        known(cluster.url, tmp_path, monkeypatch)
        monkeypatch.setattr(
            transfer, "read_text", lambda uri: "{}" if len(cluster.created) == 3 and "manifest" in uri else None
        )
        with launched("train", SETTINGS, placement, places) as wait:
            wait()
        assert len(cluster.created) == 3
        assert cluster.left_behind() == []
    said = capsys.readouterr().out
    assert "worker-1 was deleted from outside, on" in said
    assert said.count("attempt 2 of 3 in 0 s") == said.count("attempt 3 of 3 in 0 s") == 1
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"job-1", "job-2", "job-3"}


def _anything(folder: Path) -> Path:
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


def test_what_lies_where_no_pod_can_reach_is_refused(tmp_path: Path) -> None:
    places = places_of(tmp_path, tmp_path, "/tmp/outputs")
    refused = pytest.raises(UserError, match="use an object store as pipeline root, or give job_storage")
    with refused, launched("train", SETTINGS, Placement(**PLACEMENT), places) as wait:
        wait()


@pytest.mark.parametrize("launcher", ["torchrun", "auto"])
def test_many_pods_without_a_cluster_are_refused(launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UserError, match="num_workers is 2"):
        placement = Placement(**PLACEMENT | {"launcher": launcher, "num_workers": 2})
        with launched("train", SETTINGS, placement, places_of(tmp_path, tmp_path, "x")):
            pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_workers": 0}, "num_workers is 0: give 1 or more"),
        ({"num_processes": 0}, "num_processes is 0: give 1 or more"),
        ({"min_workers": 3, "num_workers": 2}, "min_workers is 3, num_workers 2: give at most as many"),
        ({"memory_per_worker": "lots"}, "memory_per_worker is 'lots': give a quantity"),
        ({"launcher": "trainjob", "min_workers": 1}, "not elastic"),
        ({"launcher": "trainjob", "priority_class": "high"}, "priority_class needs launcher=pytorchjob"),
        ({"launcher": "mpijob"}, "launcher is 'mpijob'"),
    ],
)
def test_a_placement_that_cannot_be_is_refused_before_anything_runs(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Placement(**PLACEMENT | given)


def test_a_task_is_known_by_its_outputs_place_whichever_try_it_is(tmp_path: Path) -> None:
    here, again = (remote.task_id_of(places_of(tmp_path / it, tmp_path, f"s3://{BUCKET}/runs/a")) for it in ("1", "2"))
    assert here == again != remote.task_id_of(places_of(tmp_path, tmp_path, f"s3://{BUCKET}/runs/b"))


@pytest.mark.parametrize(
    ("output", "storage", "where"),
    [
        ("minio://b/v2/artifacts/adapt/run-1/train/55/trained", "", "minio://b/v2/artifacts/adapt/checkpoints"),
        ("s3://b/runs/trained", "", "s3://b/runs/trained.checkpoints"),
        ("/volume/adapt-train-1/output", "/volume", "/volume/checkpoints"),
    ],
    ids=["as Kubeflow names it", "anywhere", "shared volume"],
)
def test_checkpoints_lie_where_another_run_finds_them(output: str, storage: str, where: str) -> None:
    assert remote.checkpoints_at(Placement(**PLACEMENT | {"job_storage": storage}), output, "run-1") == where


def test_what_the_step_asks_for_is_the_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = SimpleNamespace(
        resources={"limits": {"nvidia.com/gpu": "4", "memory": "8Gi"}},
        env=[
            {"name": "NCCL_DEBUG", "value": "INFO"},
            {"name": "PIPELINE_RUN_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['pipeline/runid']"}}},
        ],
        node_selector={"gpu": "h100"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
        affinity=None,
        volumes=[{"name": "data", "emptyDir": {}}],
        volume_mounts=[{"name": "data", "mountPath": "/data"}],
    )
    workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "adapt-1", "uid": "w"}
    step = {"name": "step", "namespace": "team-a", "uid": "s", "ownerReferences": [workflow]}
    monkeypatch.setenv("KFP_POD_NAME", "step")
    with replay("01", speed=SPEED) as cluster:
        cluster.add("pods", {"apiVersion": "v1", "kind": "Pod", "metadata": step, "spec": {"containers": []}, "status": {}})
        api = known(cluster.url, tmp_path, monkeypatch)
        job = remote.build_job("train", COMMAND, Placement(**PLACEMENT), "j", "run-1", "task-1", asked, api)
    body = manifest(job, "pytorchjob")
    (container,) = body["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    assert body["spec"]["nprocPerNode"] == "4"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "4", "memory": "8Gi"}
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in container["env"]
    assert body["metadata"]["ownerReferences"] == [workflow]
    assert container["command"][:5] == ["python", "-m", "components.launch.node", "--stage=train", f"--settings={SETTINGS}"]
    assert container["command"][5:] == ["--inputs=data=d", "--output-uri=o", "--checkpoint-uri=c"]
    (run_id,) = (it for it in container["env"] if it["name"] == "PIPELINE_RUN_ID")
    assert run_id == {"name": "PIPELINE_RUN_ID", "value": "run-1"}
    assert "/data" in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_the_end_of_a_run_takes_its_jobs_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.launch import jobs

    with replay("03b", speed=SPEED) as cluster:
        api = known(cluster.url, tmp_path, monkeypatch)
        job = remote.build_job("train", COMMAND, Placement(**PLACEMENT), "j", "run-1", "task-1", None, api)
        jobs.create(api, "pytorchjob", manifest(job, "pytorchjob"))
        monkeypatch.setattr(jobs, "connect", lambda namespace: api)
        assert jobs.delete_run("another") == []
        assert jobs.delete_run("run-1") == ["j"]
        assert jobs.delete_run("run-1") == []
    assert json.dumps(cluster.created).count("run-1") >= 2
