"""What the runs above others say of them, whoever comes last; iterations; what crashes leave behind."""

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from itertools import permutations

import mlflow
import pytest
from mlflow.entities import Run
from support import ROOT

from components.artifacts.provenance import Iteration, Tracking
from components.tracking import tree
from components.tracking.runs import end_pipeline_run, open_pipeline_run, stage_run

SETTLE_SECONDS = 0.01
"""Nobody else comes at the same moment, here."""


@pytest.fixture
def part_of(tracking: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes this process a part of a pipeline run."""
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    monkeypatch.setattr(tree, "SETTLE_SECONDS", SETTLE_SECONDS)

    def become(pipeline_run_id: str) -> str:
        monkeypatch.setenv("PIPELINE_RUN_ID", pipeline_run_id)
        return pipeline_run_id

    return become


def runs_of(pipeline_run_id: str) -> list[Run]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("adapt")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`{tree.PIPELINE_RUN_TAG}` = '{pipeline_run_id}'"))


def tree_of(pipeline_run_id: str) -> dict[str, str]:
    """Path of names -> status."""
    runs = {run.info.run_id: run for run in runs_of(pipeline_run_id)}

    def path(run: Run) -> str:
        above = run.data.tags.get("mlflow.parentRunId")
        return f"{path(runs[above])}/{run.info.run_name}" if above else str(run.info.run_name)

    paths = [path(run) for run in runs.values()]
    assert len(set(paths)) == len(paths)
    return dict(zip(paths, [run.info.status for run in runs.values()], strict=True))


def test_the_first_step_opens_the_run_and_those_that_follow_wait_for_nothing(
    part_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = part_of("opened")
    monkeypatch.setattr(tree, "SETTLE_SECONDS", -1)  # which no clock takes
    for _ in range(2):  # a first step that is tried again
        open_pipeline_run(Tracking("adapt", ""))
    with stage_run("tokenize", Tracking("adapt", "")):
        pass
    assert tree_of(own) == {own: "RUNNING", f"{own}/tokenize": "FINISHED"}


def test_of_those_that_crashes_left_behind_everybody_takes_the_same(part_of: Callable[[str], str]) -> None:
    own = part_of("crashed")
    client = mlflow.MlflowClient()
    open_pipeline_run(Tracking("adapt", ""))
    (settled,) = runs_of(own)
    left = client.create_run(settled.info.experiment_id, start_time=1, tags=tree.of_pipeline(own))
    for name in ("train", "evaluate"):
        with stage_run(name, Tracking("adapt", "")):
            pass
    above = {run.data.tags["mlflow.parentRunId"] for run in runs_of(own) if run.info.run_name in ("train", "evaluate")}
    assert above == {settled.info.run_id}
    end_pipeline_run(own, Tracking("adapt", ""))
    assert client.get_run(left.info.run_id).info.status == "KILLED"


# --- what the runs above say ---


def ends(iteration: str, stage: str, last: bool = False, fails: bool = False) -> None:
    try:
        with stage_run(stage, Tracking("adapt", ""), last, Iteration(iteration) if iteration else None):
            assert not fails
    except AssertionError:
        pass


@pytest.mark.parametrize("order", [("good", "bad"), ("bad", "good")])
def test_an_iteration_that_fails_fails_the_pipeline_whichever_comes_last(
    part_of: Callable[[str], str], order: tuple[str, ...]
) -> None:
    own = part_of(f"one fails: {order[0]} first")
    open_pipeline_run(Tracking("adapt", ""))
    for iteration in order:
        ends(iteration, "train", fails=iteration == "bad")
        if iteration == "good":
            ends(iteration, "register", last=True)
    ends("", "suite", last=True)
    wanted = {own: "FAILED", f"{own}/good": "FINISHED", f"{own}/bad": "FAILED", f"{own}/suite": "FINISHED"}
    assert tree_of(own).items() >= wanted.items()

    again = {"": "FAILED", "/bad": "FAILED"}
    ends("bad", "evaluate")  # of another kind: the training is as it was
    assert {path.removeprefix(own): status for path, status in tree_of(own).items()}.items() >= again.items()
    with stage_run("train", Tracking("adapt", ""), iteration=Iteration("bad")):
        statuses = {run.info.run_name: run.info.status for run in runs_of(own) if tree.LEVEL in run.data.tags}
        assert statuses == {own: "RUNNING", "good": "FINISHED", "bad": "RUNNING"}
    ends("bad", "register", last=True)
    statuses = {run.info.run_name: run.info.status for run in runs_of(own) if tree.LEVEL in run.data.tags}
    assert statuses == {own: "FINISHED", "good": "FINISHED", "bad": "FINISHED"}


def test_the_last_stage_does_not_end_what_still_runs(part_of: Callable[[str], str]) -> None:
    own = part_of("still running")
    open_pipeline_run(Tracking("adapt", ""))
    begun, may_end = threading.Event(), threading.Event()

    def train() -> None:
        with stage_run("train", Tracking("adapt", "")):
            begun.set()
            may_end.wait()

    beside = threading.Thread(target=train)
    beside.start()
    begun.wait()
    ends("", "register", last=True)
    assert tree_of(own)[own] == "RUNNING"
    may_end.set()
    beside.join()
    assert tree_of(own) == {own: "FINISHED", f"{own}/train": "FINISHED", f"{own}/register": "FINISHED"}


def run(name: str, status: str, begun: int, ended: int | None, **tags: str) -> Run:
    """As MLflow hands it out."""
    info = mlflow.entities.RunInfo(f"{name}{begun}", "0", "me", status, begun, ended, "active", run_name=name)
    return Run(info, mlflow.entities.RunData(tags=[mlflow.entities.RunTag(key, value) for key, value in tags.items()]))


FAILED, KILLED_SILENTLY = run("train", "FAILED", 1, 5), run("train", "RUNNING", 1, None)
BESIDE, AFTER = run("train", "FINISHED", 3, 9), run("train", "FINISHED", 6, 9)
REGISTERED = run("register", "FINISHED", 9, 10, last="true")


@pytest.mark.parametrize(
    ("runs", "status"),
    [
        ([], "RUNNING"),
        ([AFTER], "RUNNING"),
        ([AFTER, REGISTERED], "FINISHED"),
        ([FAILED, AFTER, REGISTERED], "FINISHED"),
        ([FAILED, BESIDE, REGISTERED], "FAILED"),  # which is no second try
        ([KILLED_SILENTLY, REGISTERED], "RUNNING"),
        ([KILLED_SILENTLY, AFTER, REGISTERED], "FINISHED"),
        ([FAILED, run("train", "RUNNING", 6, None)], "RUNNING"),
        ([FAILED, run("evaluate", "RUNNING", 6, None)], "FAILED"),
        ([run("train", "KILLED", 1, 2), REGISTERED], "KILLED"),
        ([run("train", "KILLED", 1, 2), run("train", "RUNNING", 6, None)], "RUNNING"),
        ([run("train", "KILLED", 1, 2), run("evaluate", "FAILED", 1, 2)], "FAILED"),
        ([run("train", "FINISHED", 1, 1), run("train", "FINISHED", 1, 1), REGISTERED], "FINISHED"),
    ],
)
def test_what_runs_say_together_does_not_hang_on_their_order(runs: list[Run], status: str) -> None:
    assert {tree.status_of(order) for order in permutations(runs)} == {status}


# --- iterations ---


def test_an_iteration_has_its_stages_and_what_is_its_own(part_of: Callable[[str], str]) -> None:
    own = part_of("iterations")
    open_pipeline_run(Tracking("adapt", ""))
    with stage_run("tokenize rte", Tracking("adapt", "")):
        pass
    for seed, score in ((0, 0.5), (1, 0.75)):
        iteration = Iteration(f"rte, seed {seed}", {"task": "rte", "seed": str(seed)})
        with stage_run("evaluate", Tracking("adapt", ""), iteration=iteration) as evaluating:
            evaluating.log_metrics({"score": score})
        with stage_run("register", Tracking("adapt", ""), iteration=iteration) as registering:
            registering.log_registered(f"models:/rte/{seed}")
        with stage_run("promote", Tracking("adapt", ""), last=True, registered=f"models:/rte/{seed}"):
            pass
    names = ("evaluate", "register", "promote")
    of_iterations = {f"{own}/rte, seed {seed}/{name}" for seed in (0, 1) for name in names}
    assert set(tree_of(own)) == {own, f"{own}/tokenize rte", *(f"{own}/rte, seed {seed}" for seed in (0, 1))} | of_iterations
    found: Mapping[str, Run] = {str(run.info.run_name): run for run in runs_of(own)}
    assert found["rte, seed 1"].data.params == {"task": "rte", "seed": "1"}
    assert found["rte, seed 1"].data.metrics == {"score": 0.75}
    assert found[own].data.metrics == {}
    assert {found[f"rte, seed {seed}"].info.status for seed in (0, 1)} == {"FINISHED"}
    assert found[own].info.status == "RUNNING"


def test_what_is_left_open_is_ended_on_every_level(part_of: Callable[[str], str]) -> None:
    own = part_of("left open")
    killed = """
import os
from components.artifacts.provenance import Iteration, Tracking
from components.tracking.runs import stage_run
with stage_run("train", Tracking("adapt", ""), iteration=Iteration("rte")):
    os._exit(9)
"""
    subprocess.run([sys.executable, "-c", killed], cwd=ROOT, check=False, timeout=120)
    assert set(tree_of(own).values()) == {"RUNNING"}
    end_pipeline_run(own, Tracking("adapt", ""))
    assert tree_of(own) == dict.fromkeys((own, f"{own}/rte", f"{own}/rte/train"), "KILLED")
