"""A run per pipeline run, a nested run per stage; a run that Kubeflow opened is used and left as it was."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest

from components.artifacts.provenance import Tracking
from components.errors import TryAgainError, UserError
from components.tracking.runs import StageRun, open_pipeline_run, stage_run
from components.tracking.tree import PIPELINE_RUN_TAG


@pytest.fixture(autouse=True)
def _store(tracking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")


@contextmanager
def stage_of(
    stage: str, pipeline_run_id: str, experiment: str = "adapt", tracking_uri: str = "", last: bool = False
) -> Iterator[StageRun]:
    """The stage's run, in a process that is a part of that pipeline run."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PIPELINE_RUN_ID", pipeline_run_id)
        open_pipeline_run(Tracking(experiment, tracking_uri))
        with stage_run(stage, Tracking(experiment, tracking_uri), last) as run:
            yield run


def runs_of(pipeline_run_id: str) -> dict[str, mlflow.entities.Run]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("adapt")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`{PIPELINE_RUN_TAG}` = '{pipeline_run_id}'")
    return {run.info.run_name: run for run in found}


def inputs_of(run: mlflow.entities.Run) -> list[mlflow.entities.DatasetInput]:
    assert run.inputs
    return run.inputs.dataset_inputs


def test_stages_are_nested_in_one_run_that_ends_with_the_last(tokenized: Callable[[str], Path]) -> None:
    manifest = json.loads((tokenized("sst2") / "manifest.json").read_text())
    with stage_of("tokenize", "p1") as run:
        run.log_manifest(manifest)
    assert runs_of("p1")["p1"].info.status == "RUNNING"
    with stage_of("register", "p1", last=True) as run:
        run.log_metrics({"score": 0.5})
    runs = runs_of("p1")
    assert set(runs) == {"p1", "tokenize", "register"}
    parent = runs["p1"]
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["score"] == 0.5
    assert runs["tokenize"].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert runs["tokenize"].data.params["source"] == "sample"
    assert runs["tokenize"].data.tags["digest.output"] == manifest["digest"]


def test_metrics_are_logged_with_the_dataset_they_were_measured_on() -> None:
    digest = "0123456789abcdef" * 4
    with stage_of("evaluate", "p7") as run:
        dataset = run.log_dataset("sst2", "s3://bucket/dataset", digest, "evaluation")
        run.log_metrics({"score": 0.5}, dataset)
    runs = runs_of("p7")
    assert runs["evaluate"].data.metrics == runs["p7"].data.metrics == {"score": 0.5}
    (logged,) = inputs_of(runs["evaluate"])
    assert (logged.dataset.name, logged.dataset.digest, logged.dataset.source_type) == ("sst2", digest[:36], "s3")
    assert json.loads(logged.dataset.source) == {"uri": "s3://bucket/dataset"}
    assert {tag.key: tag.value for tag in logged.tags} == {"mlflow.data.context": "evaluation", "sha256": digest}
    assert inputs_of(runs["p7"]) == []


def test_a_folder_is_logged_whole_and_what_is_named_on_the_parent_too(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    for name in ("report.html", "predictions.parquet", "figures/roc.svg"):
        (tmp_path / name).write_text(name)
    with stage_of("evaluate", "p8") as run:
        run.log_folder(tmp_path, "report.html")
    client, runs = mlflow.MlflowClient(), runs_of("p8")
    stage, parent = (runs[name].info.run_id for name in ("evaluate", "p8"))
    assert {file.path for file in client.list_artifacts(stage)} == {"report.html", "predictions.parquet", "figures"}
    assert [file.path for file in client.list_artifacts(stage, "figures")] == ["figures/roc.svg"]
    assert [file.path for file in client.list_artifacts(parent)] == ["report.html"]


def test_a_failed_stage_fails_the_pipeline_run() -> None:
    with pytest.raises(ZeroDivisionError), stage_of("train", "p2"):
        print(1 / 0)
    assert {name: run.info.status for name, run in runs_of("p2").items()} == {"p2": "FAILED", "train": "FAILED"}


@pytest.mark.parametrize("stop", [SystemExit(143), KeyboardInterrupt()], ids=["SIGTERM", "Ctrl-C"])
def test_a_stage_that_is_stopped_ends_its_run_and_that_above_it_as_killed(stop: BaseException) -> None:
    own = f"stopped-{type(stop).__name__}"
    with pytest.raises(type(stop)), stage_of("train", own):
        raise stop
    assert {name: run.info.status for name, run in runs_of(own).items()} == {own: "KILLED", "train": "KILLED"}


def test_a_run_that_kubeflow_opened_is_used_and_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, tokenized: Callable[[str], Path]
) -> None:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("adapt")
    assert experiment is not None
    opened = client.create_run(experiment.experiment_id, run_name="kfp-task", tags={"kfp.pipeline_run_id": "p3"})
    client.log_param(opened.info.run_id, "task", "as Kubeflow logged it")
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment.experiment_id)
    with stage_of("tokenize", "p3", experiment="another") as run:
        run.log_manifest(json.loads((tokenized("sst2") / "manifest.json").read_text()))
        run.log_metrics({"rows": 3.0})
    runs = runs_of("p3")
    assert set(runs) == {"kfp-task"}
    assert runs["kfp-task"].data.params["task"] == "as Kubeflow logged it"
    assert runs["kfp-task"].data.params["model"] == "tiny"
    assert runs["kfp-task"].data.metrics["rows"] == 3.0
    assert client.get_experiment_by_name("another") is None


def test_a_growing_metrics_file_is_followed_through_its_renaming(tmp_path: Path) -> None:
    partial = tmp_path / ".out.1.partial"
    partial.mkdir()
    line = '{"update": %d, "loss": %f}\n'
    with stage_of("train", "p4") as run:
        with run.following(tmp_path / "out", "metrics.jsonl"):
            with (partial / "metrics.jsonl").open("w") as file:
                file.write(line % (1, 0.5) + line % (2, 0.25) + '{"update": 3, "lo')
            for _ in range(100):
                if logged := mlflow.MlflowClient().get_metric_history(run.run_id, "loss"):
                    break
                time.sleep(0.1)
            assert [(point.step, point.value) for point in logged] == [(1, 0.5), (2, 0.25)]
            with (partial / "metrics.jsonl").open("a") as file:
                file.write('ss": 0.125}\n')
            partial.rename(tmp_path / "out")
        history = mlflow.MlflowClient().get_metric_history(run.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25), (3, 0.125)]


def test_a_file_that_goes_on_from_a_checkpoint_is_logged_once(tmp_path: Path) -> None:
    """Killed after update 3 and called again, in the same MLflow run: the lines of 1 to 3 come again, and then the next."""
    line = '{"update": %d, "loss": %f}\n'
    with stage_of("train", "p9") as run:
        for attempt, last in ((1, 3), (2, 5)):
            with run.following(tmp_path / "out", "metrics.jsonl"):
                partial = tmp_path / f".out.{attempt}.partial"
                partial.mkdir()
                (partial / "metrics.jsonl").write_text("".join(line % (step, 1 / step) for step in range(1, last + 1)))
        history = mlflow.MlflowClient().get_metric_history(run.run_id, "loss")
    assert [point.step for point in history] == [1, 2, 3, 4, 5]


def test_no_server_and_a_server_that_is_away_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where there are no local runs
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    previous = mlflow.get_tracking_uri()
    with (
        pytest.raises(TryAgainError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"),
        stage_of("train", "p5", tracking_uri="http://127.0.0.1:9"),
    ):
        pass
    mlflow.set_tracking_uri(previous)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with pytest.raises(UserError, match="no MLflow server"), stage_of("train", "p6"):
        pass


def test_a_stage_that_is_a_part_of_no_pipeline_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_RUN_ID", "")
    with pytest.raises(UserError, match="PIPELINE_RUN_ID is not set"), stage_run("train", Tracking("adapt", "")):
        pass
