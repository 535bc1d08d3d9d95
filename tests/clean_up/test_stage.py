"""The end of a pipeline run, after a stage that could say nothing any more."""

import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from cluster_stub import NAMESPACE, Cluster, forbidden
from servers import BUCKET, s3_server

import components.launch
from components.artifacts.provenance import Tracking
from components.clean_up.stage import clean_up, end_abandoned
from components.errors import TryAgainError, UserError
from components.storage import transfer
from components.tracking.runs import open_pipeline_run, stage_run


@pytest.fixture
def deleted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pipeline runs whose jobs were deleted."""
    runs: list[str] = []
    module = types.ModuleType("components.launch.jobs")  # there is no API server here; what it deletes is tested with it
    monkeypatch.setattr(module, "delete_run", runs.append, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(components.launch, "jobs", module, raising=False)
    return runs


def statuses(pipeline_run_id: str) -> dict[str, str]:
    experiment = mlflow.MlflowClient().get_experiment_by_name("adapt")
    assert experiment is not None
    found = mlflow.MlflowClient().search_runs([experiment.experiment_id], f"tags.`kfp.pipeline_run_id` = '{pipeline_run_id}'")
    return {str(run.info.run_name): run.info.status for run in found}


@pytest.fixture
def broken_off(tracking: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A pipeline run of which a stage went well and the next was killed."""
    monkeypatch.setenv("PIPELINE_RUN_ID", "killed")
    open_pipeline_run(Tracking("adapt", ""))
    with stage_run("tokenize", Tracking("adapt", "")):
        pass
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("adapt")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.stage = 'pipeline' AND attributes.run_name = 'killed'")
    tags = {"kfp.pipeline_run_id": "killed", "mlflow.parentRunId": parent.info.run_id}
    client.create_run(experiment.experiment_id, run_name="train", tags=tags)
    assert statuses("killed") == {"killed": "RUNNING", "tokenize": "FINISHED", "train": "RUNNING"}
    yield "killed"
    for run in client.search_runs([experiment.experiment_id], "tags.`kfp.pipeline_run_id` = 'killed'"):
        client.delete_run(run.info.run_id)


def test_what_was_left_open_is_ended_as_killed(broken_off: str, deleted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        clean_up(pipeline_run_id=broken_off)
        assert statuses(broken_off) == {"killed": "KILLED", "tokenize": "FINISHED", "train": "KILLED"}
    assert deleted == ["killed", "killed"]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert all(line.endswith("was still open in MLflow, and is marked as killed") for line in said)


@pytest.mark.usefixtures("tracking")
def test_a_run_that_ended_well_stays_as_it_is(deleted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_RUN_ID", "well")
    open_pipeline_run(Tracking("adapt", ""))
    with stage_run("register", Tracking("adapt", ""), last=True):
        pass
    clean_up(pipeline_run_id="well")
    assert statuses("well") == {"well": "FINISHED", "register": "FINISHED"}
    assert deleted == ["well"]


def test_a_run_that_kubeflow_opened_is_left_to_it(tracking: str, deleted: list[str]) -> None:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("adapt")
    assert experiment is not None
    client.create_run(experiment.experiment_id, run_name="kubeflow's", tags={"kfp.pipeline_run_id": "theirs"})
    clean_up(pipeline_run_id="theirs")
    clean_up(pipeline_run_id="theirs", experiment="never-made")
    assert statuses("theirs") == {"kubeflow's": "RUNNING"}
    assert client.get_experiment_by_name("never-made") is None


def test_jobs_are_deleted_where_mlflow_is_away_and_runs_ended_where_the_cluster_is(
    broken_off: str, deleted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(pipeline_run_id: str) -> None:
        raise TryAgainError("the API server is away")

    monkeypatch.setattr(sys.modules["components.launch.jobs"], "delete_run", away)
    with pytest.raises(TryAgainError, match="API server"):
        clean_up(pipeline_run_id=broken_off)
    assert statuses(broken_off)["killed"] == "KILLED"
    monkeypatch.setattr(sys.modules["components.launch.jobs"], "delete_run", deleted.append)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)  # which has no runs/mlflow.db, as `make run` leaves one
    with pytest.raises(UserError, match="no MLflow server"):
        clean_up(pipeline_run_id="other")
    assert deleted == ["other"]


# --- what earlier runs have left ---

HERE = "0123456789ab/team-a"


@pytest.fixture
def in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """This process is a step of another run, in the namespace team-a of a cluster."""
    cluster = Cluster(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(cluster.config))
    monkeypatch.setattr("components.launch.api.place", lambda: HERE)
    monkeypatch.setattr("components.clean_up.stage.OLD", -60.0)  # seconds: what began just now is old
    for path in ("/apis/kubeflow.org/v1", "/apis/trainer.kubeflow.org/v1alpha1"):
        kind = "pytorchjobs" if "trainer" not in path else "trainjobs"
        cluster.answers["GET", f"{path}/namespaces/{NAMESPACE}/{kind}"] = (200, {"items": []})
    return cluster


def workflows(*phases: str) -> tuple[int, Any]:
    return 200, {"items": [{"status": {"phase": phase}} for phase in phases]}


@pytest.mark.parametrize(
    ("answer", "place", "status"),
    [
        (workflows("Failed"), HERE, "KILLED"),
        (workflows(), HERE, "KILLED"),
        (workflows("Running"), HERE, "RUNNING"),
        (forbidden("list", "workflows", "argoproj.io"), HERE, "RUNNING"),
        (workflows("Failed"), "another/team-a", "RUNNING"),
        (workflows("Failed"), "", "RUNNING"),
    ],
    ids=["terminated", "forgotten by Kubeflow", "going on", "not to be known", "of another cluster", "of a laptop"],
)
def test_the_next_run_ends_what_one_that_is_over_has_left(
    answer: Any, place: str, status: str, tracking: str, in_a_pod: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = f"left-{status}-{place[:4]}-{abs(hash(str(answer)))}"
    in_a_pod.answers["GET", f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/workflows"] = answer
    monkeypatch.setenv("PIPELINE_RUN_ID", run_id)
    open_pipeline_run(Tracking("adapt", ""), place)
    monkeypatch.setenv("PIPELINE_RUN_ID", "the next")
    with in_a_pod.running():
        end_abandoned(Tracking("adapt", ""))
    assert statuses(run_id) == {run_id: status}
    asked = [query for _, path, query in in_a_pod.asked if path.endswith("/workflows")]
    assert (f"labelSelector=pipeline%2Frunid%3D{run_id}" in asked) == (place == HERE)


def test_a_run_that_has_just_begun_is_not_taken_for_abandoned(
    tracking: str, in_a_pod: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.clean_up.stage.OLD", 600.0)
    monkeypatch.setenv("PIPELINE_RUN_ID", "young")
    open_pipeline_run(Tracking("adapt", ""), HERE)
    monkeypatch.setenv("PIPELINE_RUN_ID", "the next")
    with in_a_pod.running():
        end_abandoned(Tracking("adapt", ""))
    assert statuses("young") == {"young": "RUNNING"}
    assert not in_a_pod.asked


# --- old checkpoints ---


@pytest.mark.parametrize("in_store", [False, True], ids=["volume", "store"])
def test_checkpoints_that_nobody_goes_on_from_are_swept(
    in_store: bool, tmp_path: Path, request: pytest.FixtureRequest, deleted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    uri = request.getfixturevalue("store") if in_store else str(tmp_path / "checkpoints")
    transfer.write_text(f"{uri}/old/update-1/weights", "1")
    transfer.write_text(f"{uri}/going/update-1/weights", "1")
    time.sleep(2)
    transfer.write_text(f"{uri}/going/owner", "job")  # its sign of life
    clean_up(checkpoints=uri)
    assert set(transfer.times(uri)) == {"old/update-1/weights", "going/update-1/weights", "going/owner"}
    clean_up(checkpoints=f"{uri}/", older_than_days=1.5 / 86_400)
    assert set(transfer.times(uri)) == {"going/update-1/weights", "going/owner"}
    assert capsys.readouterr().out == f"clean_up: {uri}/old is deleted\n"
    assert deleted == []


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server(tmp_path / "s3") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{BUCKET}/kfp/adapt/checkpoints"


def test_what_to_clean_up_has_to_be_said() -> None:
    with pytest.raises(UserError, match="nothing to clean up: give --pipeline-run-id or --checkpoints"):
        clean_up()
    with pytest.raises(UserError, match="older_than_days"):
        clean_up(checkpoints="/somewhere", older_than_days=-1)
