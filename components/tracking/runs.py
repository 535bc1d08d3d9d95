"""MLflow: one parent run per pipeline run, in it a run per stage.

The parent is found by the tag that Kubeflow's own MLflow plugin writes too (kfp.pipeline_run_id). Where that plugin has opened
a run for the task already (MLFLOW_RUN_ID), that run is the stage's: nothing is opened beside it, nor renamed.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException

from components.artifacts.folders import Manifest
from components.artifacts.provenance import Tracking, generators_of, pipeline_run_id
from components.errors import TryAgainError, UserError
from components.storage.s3 import environment

PIPELINE_RUN_TAG = "kfp.pipeline_run_id"
DATASET_DIGEST = 36  # characters that MLflow keeps of it
METRICS_AT_ONCE = 1000  # what the server takes in one request
POLL_SECONDS = 2.0


@contextmanager
def stage_run(stage: str, tracking: Tracking, last: bool = False) -> Iterator["StageRun"]:
    """Open the run of a stage of this pipeline run; close it, and after the last stage or a failure the parent, when the block
    ends.

    Raises:
        UserError: no MLflow server is named, or no pipeline run.  TryAgainError: the server does not answer.
    """
    _use(tracking.tracking_uri)
    with reachable(), _open(stage, pipeline_run_id(), tracking.experiment, last) as run:
        yield run


def end_pipeline_run(pipeline_run_id: str, tracking: Tracking) -> None:
    """Mark as failed what of a pipeline run is still open, its own run and its stages': what opened it ended without a word.

    Runs that Kubeflow's plugin opened are Kubeflow's to end.

    Raises:
        UserError: no MLflow server is named.  TryAgainError: it does not answer.
    """
    _use(tracking.tracking_uri)
    with reachable():
        client = mlflow.MlflowClient()
        known = client.get_experiment_by_name(tracking.experiment)
        for parent in _pipeline_runs(client, pipeline_run_id, known.experiment_id) if known else ():
            stages = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
            for run in (*stages, parent):
                if run.info.status == "RUNNING":
                    client.set_terminated(run.info.run_id, "FAILED")
                    print(f"clean_up: {run.info.run_name} was still open in MLflow, and is marked as failed", flush=True)


def _use(tracking_uri: str) -> None:
    if tracking_uri:
        mlflow.set_tracking_uri(tracking_uri)
    elif "MLFLOW_TRACKING_URI" not in os.environ:
        raise UserError("no MLflow server: give tracking_uri=http://... or set MLFLOW_TRACKING_URI")
    storage = environment()
    if {"AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"} & storage.keys():  # a store of one's own: MLflow has names of its own for it
        os.environ |= storage


@contextmanager
def reachable() -> Iterator[None]:
    """Within the block, TryAgainError where MLflow's server does not answer."""
    try:
        yield
    except MlflowException as error:
        if "API request to" not in str(error):  # anything but a server that is away is a bug
            raise
        reason = " ".join(str(error).split())[:200]
        raise TryAgainError(f"MLflow at {mlflow.get_tracking_uri()} does not answer: {reason}") from None


@contextmanager
def _open(stage: str, pipeline_run_id: str, experiment: str, last: bool) -> Iterator["StageRun"]:
    if "MLFLOW_RUN_ID" in os.environ:
        with mlflow.start_run() as active:
            yield StageRun(active.info.run_id)
        return
    client = mlflow.MlflowClient()
    parent, experiment_id = _parent(client, pipeline_run_id, experiment)
    client.update_run(parent, status="RUNNING")
    try:
        tags = {PIPELINE_RUN_TAG: pipeline_run_id}
        with mlflow.start_run(run_name=stage, experiment_id=experiment_id, parent_run_id=parent, tags=tags) as active:
            yield StageRun(active.info.run_id, parent)
    except BaseException:
        client.set_terminated(parent, "FAILED")
        raise
    if last:
        client.set_terminated(parent, "FINISHED")


def _parent(client: mlflow.MlflowClient, pipeline_run_id: str, experiment: str) -> tuple[str, str]:
    """(run id, experiment id) of the pipeline run's own run, opened by whichever stage comes first."""
    experiment_id = _experiment_id(client, experiment)
    if found := _pipeline_runs(client, pipeline_run_id, experiment_id):
        return found[0].info.run_id, experiment_id
    tags = {PIPELINE_RUN_TAG: pipeline_run_id, "stage": "pipeline"}
    return client.create_run(experiment_id, tags=tags, run_name=pipeline_run_id).info.run_id, experiment_id


def _pipeline_runs(client: mlflow.MlflowClient, pipeline_run_id: str, experiment_id: str) -> list[Run]:
    """The pipeline run's own run, if a stage has opened one."""
    query = f"tags.`{PIPELINE_RUN_TAG}` = '{pipeline_run_id}' AND tags.stage = 'pipeline'"
    return list(client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"], max_results=1))


def _experiment_id(client: mlflow.MlflowClient, experiment: str) -> str:
    if found := client.get_experiment_by_name(experiment):
        return str(found.experiment_id)
    try:
        return client.create_experiment(experiment, artifact_location=_artifact_location(mlflow.get_tracking_uri()))
    except MlflowException:  # another stage was faster
        if found := client.get_experiment_by_name(experiment):
            return str(found.experiment_id)
        raise


def _artifact_location(tracking_uri: str) -> str | None:
    """Beside an sqlite file, not in whatever folder a stage happens to run in; a server knows better."""
    path = Path(tracking_uri.removeprefix("sqlite:///"))
    return path.with_name("mlflow-artifacts").as_uri() if tracking_uri.startswith("sqlite:") and path.is_absolute() else None


class StageRun:
    """An open MLflow run of one stage."""

    def __init__(self, run_id: str, parent_id: str | None = None) -> None:
        self.run_id = run_id
        self.parent_id = parent_id
        self.client = mlflow.MlflowClient()

    def log_manifest(self, manifest: Manifest) -> None:
        """The stage's arguments as they are, its inputs' and output's digests, what generated them, and the manifest itself."""
        logged = self.client.get_run(self.run_id).data.params
        new = {name: value for name, value in manifest["parameters"].items() if name not in logged}
        self.client.log_batch(self.run_id, params=[Param(name, str(value)) for name, value in new.items()])
        digests = {f"input.{name}": digest for name, digest in manifest["inputs"].items()} | {"code": manifest["code"]}
        for name, digest in {**digests, "output": manifest["digest"]}.items():
            self.client.set_tag(self.run_id, f"digest.{name}", digest)
        self.log_generated("; ".join(generators_of(manifest["origins"])))
        self.client.log_dict(self.run_id, manifest, f"{manifest['stage']}/manifest.json")

    def log_generated(self, generated: str) -> None:
        """On this run and the pipeline's, by what the data were generated; nothing where they were not."""
        for run_id in filter(None, (self.run_id, self.parent_id)) if generated else ():
            self.client.set_tag(run_id, "generated", generated)

    def log_dataset(self, name: str, uri: str, digest: str, context: str) -> Dataset:
        """A dataset as an input of this run; `context` says for what: training, evaluation.  digest: sha256, in hex."""
        source = json.dumps({"uri": uri})
        dataset = Dataset(name, digest[:DATASET_DIGEST], uri.partition("://")[0] if "://" in uri else "local", source)
        tags = [InputTag("mlflow.data.context", context), InputTag("sha256", digest)]
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])
        return dataset

    def log_score(self, metrics: Mapping[str, float]) -> None:
        """On the pipeline's run, where it has none: a cached evaluation was logged by an earlier pipeline run alone."""
        if self.parent_id and "score" not in self.client.get_run(self.parent_id).data.metrics:
            self.log_metrics(metrics)

    def log_folder(self, folder: Path, *on_parent: str) -> None:
        """All its files on this run; the files named, on the pipeline's too."""
        self.client.log_artifacts(self.run_id, str(folder))
        for name in on_parent if self.parent_id else ():
            self.client.log_artifact(self.parent_id, str(folder / name))

    def log_metrics(self, metrics: Mapping[str, float], dataset: Dataset | None = None) -> None:
        """On this run, and on the pipeline's; measured on `dataset`."""
        now = int(time.time() * 1000)
        on = {"dataset_name": dataset.name, "dataset_digest": dataset.digest} if dataset else {}
        for run_id in filter(None, (self.run_id, self.parent_id)):
            self.client.log_batch(run_id, metrics=[Metric(name, value, now, 0, **on) for name, value in metrics.items()])

    @contextmanager
    def following(self, output_dir: Path, file: str) -> Iterator[None]:
        """Log the lines of a growing metrics file in `output_dir` (or in the folder that is to become it) as they come."""
        follower = _Follower(self, output_dir, file)
        follower.start()
        try:
            yield
        finally:
            follower.finish()


class _Follower(threading.Thread):
    def __init__(self, run: StageRun, output_dir: Path, file: str) -> None:
        super().__init__(daemon=True)
        self.run_ = run
        self.output_dir = output_dir
        self.file = file
        self.num_logged = 0
        self.last_update = self._last_update()
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(POLL_SECONDS):
            try:
                self.log_new_lines()
            except MlflowException:
                continue  # the server is away for now: the next round has these lines too

    def finish(self) -> None:
        self.stopped.set()
        self.join()
        self.log_new_lines()

    def log_new_lines(self) -> None:
        """Log the whole lines that are not logged yet."""
        unfinished = self.output_dir.parent.glob(f".{self.output_dir.name}.*.partial/{self.file}")
        paths = [path for path in (self.output_dir / self.file, *unfinished) if path.is_file()]
        if not paths:
            return
        newest = max(paths, key=lambda path: path.stat().st_mtime_ns)  # a killed run leaves one behind
        lines = newest.read_text().splitlines(keepends=True)[self.num_logged :]
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        metrics = [metric for line in whole if line["update"] > self.last_update for metric in self._metrics(line)]
        for start in range(0, len(metrics), METRICS_AT_ONCE):
            self.run_.client.log_batch(self.run_.run_id, metrics=metrics[start : start + METRICS_AT_ONCE])
        self.num_logged += len(whole)

    def _last_update(self) -> int:
        """That an earlier attempt logged on the same run: from a checkpoint on, its lines come once more."""
        client, run_id = self.run_.client, self.run_.run_id
        logged = "loss" in client.get_run(run_id).data.metrics
        return max(point.step for point in client.get_metric_history(run_id, "loss")) if logged else 0

    def _metrics(self, line: dict[str, Any]) -> list[Metric]:
        now = int(time.time() * 1000)
        return [Metric(name, value, now, line["update"]) for name, value in line.items() if name != "update"]
