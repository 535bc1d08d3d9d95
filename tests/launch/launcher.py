"""The launcher pointed at a replayed cluster, with its clocks as much faster as the cluster's."""

import contextlib
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from apiserver import Cluster
from kubernetes import client
from replay import replay
from scenarios import CLOCKS, Scenario

from components.errors import StageError
from components.launch.api import Api, Patience
from components.launch.job import RUN_LABEL, STAGE_LABEL, TASK_LABEL, Job
from components.launch.lifecycle import Ran, run_once
from components.launch.verdict import Limits

SPEED = 30.0
SLOWLY = 8.0
"""For what came out otherwise than recorded: 30 times faster, a busy machine sleeps through what took the cluster seconds."""
SLOWER = {
    # The job is deleted 9 s after its success. 30 times faster that is 0.3 s, of which a failed request's pause and time-out
    # take some, and a thread of a busy machine may sleep through the rest; then nobody can know how it ended.
    "15-clean-pod-policy-all-success-ttl": 8.0,
}
LABELS = {STAGE_LABEL: "train", RUN_LABEL: "run-1", TASK_LABEL: "task-1"}
OUTCOMES = {2: "user", 75: "retry", 1: "bug"}
PLACEMENT: dict[str, Any] = {
    "launcher": "pytorchjob",
    "num_processes": 1,
    "num_workers": 1,
    "min_workers": 0,
    "num_gpus_per_worker": 0,
    "cpu_per_worker": "",
    "memory_per_worker": "",
    "shared_memory": "1Gi",
    "queue": "",
    "priority_class": "",
    "image_pull_secrets": [],
    "training_runtime": "adapt-torch",
    "train_image": "",
    "job_storage": "",
    "start_timeout_minutes": 1.0,
    "job_timeout_minutes": 0.0,
    "max_restarts": 0,
    "attempts": 1,
    "attempt_pause_seconds": 0.0,
}


def api_of(cluster: Cluster, speed: float = SPEED, away: float = 600) -> Api:
    configuration = client.Configuration()
    configuration.host = cluster.url
    patience = Patience(
        total=away / speed, answer=10 / speed, pause=0.5 / speed, longest=5 / speed, watch=1.0, silent=10 / speed
    )
    return Api("team-a", configuration, patience)


def limits_of(scenario: Scenario, speed: float = SPEED, keep: bool = True) -> Limits:
    """keep: the scenario's own clocks too, where it succeeds."""
    clocks = CLOCKS | (scenario.clocks if scenario.outcome != "succeeded" or keep else {})
    return Limits(
        start=clocks["start_timeout"] / speed,
        job=clocks["job_timeout"] / speed,
        settle=5 / speed,
        condition=40 / speed,
        max_restarts=int(clocks["max_restarts"]),
    )


def job(num_workers: int = 2, **settings: object) -> Job:
    given = {"name": "adapt-train-1", "image": "registry/adapt:1", "command": ["python"], "labels": LABELS} | settings
    return Job(num_workers=num_workers, **given)  # type: ignore[arg-type]


def played_as_recorded(scenario: Scenario, logs_dir: Path, fault: str = "", nth: int = 0) -> tuple[Ran | StageError, Cluster]:
    """As `played`; what ends otherwise than it was recorded is played once more, slowly."""
    ran, cluster = played(scenario, logs_dir / "fast", fault, nth)
    if isinstance(ran, Ran) and ran.verdict.outcome == scenario.outcome and not cluster.left_behind():
        return ran, cluster
    return played(scenario, logs_dir / "slowly", fault, nth, SLOWLY)


def played(
    scenario: Scenario, logs_dir: Path, fault: str = "", nth: int = 0, speed: float = SPEED
) -> tuple[Ran | StageError, Cluster]:
    """How the launcher ends; `fault`: every endpoint's first request fails so, or the n-th request of all."""
    speed = min(speed, SLOWER.get(scenario.name, SPEED))
    with replay(scenario.name, speed=speed) as cluster:
        if nth:
            cluster.fail(nth, fault)
        elif fault:
            cluster.fail_each_endpoint_once(fault)
        try:
            limits = limits_of(scenario, speed, keep=not fault)
            there = stored if scenario.is_stored else absent
            ran: Ran | StageError = run_once(
                api_of(cluster, speed), job(scenario.ranks), scenario.kind, limits, logs_dir, there
            )
        except StageError as error:
            ran = error
        return ran, cluster


def stored() -> bool:
    """The job's output stands whole where it belongs."""
    return True


def absent() -> bool:
    return False


@contextlib.contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """SystemExit(143) in the block after so long, as SIGTERM raises it in a step."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def exit_codes(ran: Ran) -> dict[str, tuple[int | None, ...]]:
    """Replica -> of each of its lives."""
    runs = sorted(ran.runs, key=lambda run: (run.replica, run.number))
    return {
        replica: tuple(run.exit_code for run in lives)
        for replica, lives in itertools.groupby(runs, key=lambda run: run.replica)
    }
