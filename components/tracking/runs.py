"""MLflow: one run per pipeline run, in it a run per stage; where the pipeline has a loop, with one per iteration between them.

The pipeline's run is found by the tag that Kubeflow's own MLflow plugin writes too (kfp.pipeline_run_id). Where that plugin has
opened a run for the task already (MLFLOW_RUN_ID), that run is the stage's: nothing is opened beside it, nor renamed.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from components.artifacts.folders import Manifest, asked
from components.artifacts.provenance import Iteration, Tracking, generators_of, pipeline_run_id
from components.errors import TryAgainError
from components.tracking import tree
from components.tracking.away import in_haste
from components.tracking.follow import following
from components.tracking.server import experiment_id, own_experiment, use_server

MODEL_URI = "model_uri"
"""Tag of the run that registered it."""
PLACE = "place"
"""Tag of a pipeline's run: the cluster and the namespace that it is of."""
DATASET_DIGEST = 36  # characters that MLflow keeps of it


def open_pipeline_run(tracking: Tracking, place: str = "") -> None:
    """Open the run of this pipeline run, if it is not there yet. For the first step: while it runs no other can do so.

    Args:
        place: Cluster and namespace, as launch.api.place says it; by it `left_open` finds the run.

    Raises:
        UserError: no MLflow server is named, or no pipeline run.  TryAgainError: the server does not answer.
    """
    use_server(tracking.tracking_uri)
    if "MLFLOW_RUN_ID" not in os.environ:
        with reachable():
            client = mlflow.MlflowClient()
            opened = _pipeline_run(client, tracking.experiment, alone=True)
            if place:
                client.set_tag(opened.info.run_id, PLACE, place)


def left_open(tracking: Tracking, place: str, seconds: float) -> list[str]:
    """The ids of other pipeline runs of the experiment and the place that are open since longer ago than that."""
    with reachable():
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(tracking.experiment)
        tags = {tree.LEVEL: "pipeline", PLACE: place}
        found = tree.with_tags(client, experiment.experiment_id, tags) if experiment else []
        before = 1000 * (time.time() - seconds)
        ids = [
            str(run.data.tags.get(tree.PIPELINE_RUN_TAG))
            for run in found
            if run.info.status == "RUNNING" and run.info.start_time < before
        ]
        return [each for each in ids if each != pipeline_run_id()]


@contextmanager
def stage_run(
    name: str, tracking: Tracking, last: bool = False, iteration: Iteration | None = None, registered: str = ""
) -> Iterator["StageRun"]:
    """Open the run of a stage of this pipeline run, and close it when the block ends; the runs above it then say what all those
    below them do: one failed, all are done, or some go on.

    What goes wrong in the block is raised, whether MLflow can be told or not.

    Args:
        last: When it has ended well nothing more is to come, here or, of an iteration, in that.
        iteration: Of the pipeline's loop, which the stage is a part of.
        registered: Instead: the version that the stage goes on with; the iteration is that which registered it.

    Raises:
        UserError: no MLflow server is named, or no pipeline run.  TryAgainError: the server does not answer.
    """
    use_server(tracking.tracking_uri)
    with reachable():
        if "MLFLOW_RUN_ID" in os.environ:
            active = mlflow.start_run()
            with _ending(name):
                yield StageRun(active.info.run_id)
            return
        client = mlflow.MlflowClient()
        pipeline = _pipeline_run(client, tracking.experiment)
        of_pipeline, experiment = {tree.PIPELINE_RUN_TAG: pipeline_run_id()}, pipeline.info.experiment_id
        if registered:
            by = tree.with_tags(client, experiment, {**of_pipeline, MODEL_URI: registered})
            iteration = next((Iteration(run.data.tags[tree.ITERATION]) for run in by if tree.ITERATION in run.data.tags), None)
        levels = [pipeline, *([_iteration_run(client, pipeline, iteration)] if iteration else [])]
        tags = of_pipeline | ({tree.ITERATION: iteration.name} if iteration else {})
        above = levels[-1].info.run_id
        active = mlflow.start_run(run_name=name, experiment_id=experiment, parent_run_id=above, tags=tags)
        run = StageRun(active.info.run_id, above, last)
        with _ending(name, levels):
            tree.settle(client, levels)
            yield run
            if run.is_last:
                client.set_tag(run.run_id, tree.LAST, "true")


@contextmanager
def active_or_own(name: str, experiment: str = "") -> Iterator[Run]:
    """The MLflow run that is active, else one that lasts as long as the block, in the experiment of that name."""
    if active := mlflow.active_run():
        yield active
        return
    run = mlflow.start_run(run_name=name, experiment_id=own_experiment(experiment))
    with _ending(name):
        yield run


def end_pipeline_run(pipeline_run_id: str, tracking: Tracking) -> None:
    """Mark as killed what of a pipeline run is still open, its own run and all below it: what opened it ended without a word.

    Runs that Kubeflow's plugin opened are Kubeflow's to end.

    Raises:
        UserError: no MLflow server is named.  TryAgainError: it does not answer.
    """
    use_server(tracking.tracking_uri)
    with reachable():
        client = mlflow.MlflowClient()
        known = client.get_experiment_by_name(tracking.experiment)
        for own in tree.with_tags(client, known.experiment_id, tree.of_pipeline(pipeline_run_id)) if known else ():
            for name in tree.end(client, own):
                print(f"clean_up: {name} was still open in MLflow, and is marked as killed", flush=True)


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
def _ending(name: str, levels: Sequence[Run] = ()) -> Iterator[None]:
    """End the active run as the block ends, and settle what is above it.

    MLflow's own `with` would raise that the server is away instead of what went wrong in the block, some minutes later.
    """
    try:
        yield
    except BaseException as error:
        was_stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        with in_haste(f"that {name} {'was stopped' if was_stopped else 'failed'}"):
            mlflow.end_run("KILLED" if was_stopped else "FAILED")
            tree.settle(mlflow.MlflowClient(), levels)
        raise
    mlflow.end_run()
    tree.settle(mlflow.MlflowClient(), levels)


def _pipeline_run(client: mlflow.MlflowClient, experiment: str, alone: bool = False) -> Run:
    own = pipeline_run_id()
    return tree.the_one(client, experiment_id(client, experiment), own, tree.of_pipeline(own), alone=alone)


def _iteration_run(client: mlflow.MlflowClient, pipeline: Run, iteration: Iteration) -> Run:
    """With what is its own as parameters, so that iterations can be compared."""
    tags = tree.of_iteration(pipeline_run_id(), iteration.name, pipeline.info.run_id)
    return tree.the_one(client, pipeline.info.experiment_id, iteration.name, tags, iteration.params)


class StageRun:
    """An open MLflow run of one stage."""

    def __init__(self, run_id: str, parent_id: str | None = None, is_last: bool = False) -> None:
        """parent_id: the run above, that of the iteration or of the pipeline.  is_last: may be set until the stage ends."""
        self.run_id = run_id
        self.parent_id = parent_id
        self.is_last = is_last
        self.client = mlflow.MlflowClient()

    def log_manifest(self, manifest: Manifest) -> None:
        """What took effect of the stage's arguments (and what was asked for where that was otherwise), how long it took, its
        inputs' and output's digests, what generated them, and the manifest itself.
        """
        logged = self.client.get_run(self.run_id).data.params
        named = {f"asked.{name}": value for name, value in asked(manifest).items()}
        timings = manifest.get("timings", {})
        measured = {name: value for name, value in timings.items() if not isinstance(value, str)}
        told = {name: value for name, value in timings.items() if isinstance(value, str)}
        params = {**manifest["parameters"], **manifest.get("effective", {}), **named, **told}
        new = {name: value for name, value in params.items() if name not in logged}
        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run_id,
            params=[Param(name, str(value)) for name, value in new.items()],
            metrics=[Metric(f"train_{name}", value, now, 0) for name, value in measured.items()],
        )
        digests = {f"input.{name}": digest for name, digest in manifest["inputs"].items()} | {"code": manifest["code"]}
        for name, digest in {**digests, "output": manifest["digest"]}.items():
            self.client.set_tag(self.run_id, f"digest.{name}", digest)
        self.log_generated("; ".join(generators_of(manifest["origins"])))
        self.client.log_dict(self.run_id, manifest, f"{manifest['stage']}/manifest.json")

    def log_generated(self, generated: str) -> None:
        """On this run and the one above, by what the data were generated; nothing where they were not."""
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
        """On the run above, where it has none: a cached evaluation was logged by an earlier pipeline run alone."""
        if self.parent_id and "score" not in self.client.get_run(self.parent_id).data.metrics:
            self.log_metrics(metrics)

    def log_folder(self, folder: Path, *on_parent: str) -> None:
        """All its files on this run; the files named, on the one above too."""
        self.client.log_artifacts(self.run_id, str(folder))
        for name in on_parent if self.parent_id else ():
            self.client.log_artifact(self.parent_id, str(folder / name))

    def log_metrics(self, metrics: Mapping[str, float], dataset: Dataset | None = None) -> None:
        """On this run, and on the one above; measured on `dataset`."""
        now = int(time.time() * 1000)
        on = {"dataset_name": dataset.name, "dataset_digest": dataset.digest} if dataset else {}
        for run_id in filter(None, (self.run_id, self.parent_id)):
            self.client.log_batch(run_id, metrics=[Metric(name, value, now, 0, **on) for name, value in metrics.items()])

    def log_cached(self, digests: Mapping[str, str]) -> None:
        """On the run above, the runs that made what this pipeline run took from the cache: a tag and a link each.

        Args:
            digests: Stage -> that of its output.
        """
        own = self.client.get_run(self.run_id)
        links = []
        for stage, digest in digests.items():
            made = tree.with_tags(self.client, own.info.experiment_id, {"digest.output": digest})
            here = own.data.tags.get(tree.PIPELINE_RUN_TAG)
            if made and self.parent_id and all(run.data.tags.get(tree.PIPELINE_RUN_TAG) != here for run in made):
                run_id = made[0].info.run_id
                self.client.set_tag(self.parent_id, f"cached.{stage}", run_id)
                links.append(
                    f"- {stage}: from the cache, made by [{run_id}](#/experiments/{own.info.experiment_id}/runs/{run_id})"
                )
        if links and self.parent_id:
            self.client.set_tag(self.parent_id, MLFLOW_RUN_NOTE, "\n".join(links))

    def log_registered(self, model_uri: str) -> None:
        """By which `stage_run` finds the iteration that registered it."""
        self.client.set_tag(self.run_id, MODEL_URI, model_uri)

    def following(self, output_dir: Path, file: str) -> AbstractContextManager[None]:
        """Within the block, the lines of a growing metrics file of `output_dir` are logged as they come."""
        return following(self.run_id, output_dir, file)
