"""The end of a pipeline run, after a stage that could say nothing any more."""

import sys
import types
from collections.abc import Iterator

import mlflow
import pytest

import components.launch
from components.artifacts.provenance import Tracking
from components.clean_up.stage import clean_up
from components.errors import TryAgainError, UserError
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


def test_what_was_left_open_is_ended_as_failed(broken_off: str, deleted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        clean_up(pipeline_run_id=broken_off)
        assert statuses(broken_off) == {"killed": "FAILED", "tokenize": "FINISHED", "train": "FAILED"}
    assert deleted == ["killed", "killed"]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert all(line.endswith("was still open in MLflow, and is marked as failed") for line in said)


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
    broken_off: str, deleted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(pipeline_run_id: str) -> None:
        raise TryAgainError("the API server is away")

    monkeypatch.setattr(sys.modules["components.launch.jobs"], "delete_run", away)
    with pytest.raises(TryAgainError, match="API server"):
        clean_up(pipeline_run_id=broken_off)
    assert statuses(broken_off)["killed"] == "FAILED"
    monkeypatch.setattr(sys.modules["components.launch.jobs"], "delete_run", deleted.append)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match="no MLflow server"):
        clean_up(pipeline_run_id="other")
    assert deleted == ["other"]
