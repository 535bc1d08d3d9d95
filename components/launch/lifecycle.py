"""A training job on Kubernetes, from its creation to its end: one job for a task of a run, never two, and none left behind."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from components.errors import FailedError, NeverStartedError, StageError, TryAgainError, UserError
from components.launch.access import missing
from components.launch.api import EVENTS, PODS, Api, ApiError, Object
from components.launch.job import Job, manifest
from components.launch.jobs import PATHS, POD_LABEL, await_gone, create, delete, get, is_ours, refused
from components.launch.logs import Logs
from components.launch.queueing import Admission
from components.launch.state import Run, State
from components.launch.verdict import Clock, Limits, Verdict, decide, weighed
from components.launch.watch import Watch, run_safely
from components.launch.wording import remarks, standing
from components.parameters import JobKind


class RankError(UserError):
    """The user's error that a rank found: the same ranks, given the same, find it again."""


def run_to_end(api: Api, job: Job, kind: JobKind, limits: Limits, logs_dir: Path, is_stored: Callable[[], bool]) -> None:
    """Run the job until it has ended well.

    Args:
        logs_dir: Gets a folder for each job that ran.
        is_stored: Whether the job's output stands whole where it belongs.

    Raises:
        UserError, TryAgainError, FailedError: how else it ended, and why.
    """
    if lacking := missing(api, kind):
        raise UserError(f"the service account lacks rights in namespace {api.namespace}: {', '.join(lacking)}; see k8s/base")
    number = 1 + sum(1 for _ in logs_dir.glob("job-*"))
    ran = run_once(api, job, kind, limits, logs_dir / f"job-{number}", is_stored)
    if ran.verdict.outcome != "succeeded":
        raise error_of(ran)


@dataclass(frozen=True)
class Ran:
    """How one job ended. `runs`: every life of every rank."""

    verdict: Verdict
    runs: list[Run]
    had_started: bool


def run_once(api: Api, job: Job, kind: JobKind, limits: Limits, logs_dir: Path, is_stored: Callable[[], bool]) -> Ran:
    """Create the job, or take over the one that an earlier try of the task left, see it to its end, and delete it."""
    body = manifest(job, kind)
    try:
        created = create(api, kind, body, limits.start)
        print(f"{job.stage}: {created['kind']} {job.name} in namespace {api.namespace}", flush=True)
        return watch_over(api, kind, created, limits, logs_dir, is_stored)
    except (SystemExit, KeyboardInterrupt):
        there = get(api, kind, job.name)
        if there and is_ours(there, body):
            delete(api, kind, job.name, there["metadata"]["uid"])
        raise


def error_of(ran: Ran) -> StageError:
    verdict = ran.verdict
    if verdict.outcome == "retry" and not ran.had_started:
        return NeverStartedError(verdict.cause)
    if verdict.run and verdict.run.exit_code == UserError.exit_code:
        return RankError(verdict.cause)
    kinds: dict[str, type[StageError]] = {"user": UserError, "retry": TryAgainError, "bug": FailedError}
    return kinds[verdict.outcome](verdict.cause)


def watch_over(api: Api, kind: JobKind, created: Object, limits: Limits, logs_dir: Path, is_stored: Callable[[], bool]) -> Ran:
    """Follow the job and its logs until it has ended, then delete it, which ends what of it still runs.

    Raises:
        UserError: no right to watch.
        TryAgainError: the API is away for too long.
    """
    name, uid = created["metadata"]["name"], created["metadata"]["uid"]
    logs_dir.mkdir(parents=True, exist_ok=True)
    state, clock, stopped = State(job=created), Clock(), threading.Event()
    news: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    logs = Logs(api, state, logs_dir, stopped)

    def fail(error: Exception) -> None:
        raise refused(error, kind, api.namespace) if isinstance(error, ApiError) else error

    def tell(handle: Callable[[str, Object], None], belongs: Callable[[Object], bool], change: str, item: Object) -> None:
        if belongs(item):
            news.put(partial(handle, change, item))

    def is_mine(pod: Object) -> bool:  # one of an earlier job of this name may still be going
        owners = pod["metadata"].get("ownerReferences", [])
        return kind == "trainjob" or any(owner["uid"] == uid for owner in owners)

    def start(path: str, selector: dict[str, str], tell: Callable[[str, Object], None], known: dict[str, Object]) -> None:
        watch = Watch(api, path, selector, tell, stopped, known)
        threading.Thread(target=run_safely, args=(watch, lambda error: news.put(partial(fail, error))), daemon=True).start()

    start(
        PATHS[kind],
        {"fieldSelector": f"metadata.name={name}"},
        partial(tell, state.tell_job, lambda item: item["metadata"]["uid"] == uid),
        {uid: created},
    )
    pod_told, event_told = partial(tell, state.tell_pod, is_mine), partial(tell, state.tell_event, lambda item: True)
    others = [(path, selector, pod_told if path == PODS else event_told) for path, selector in _beside(kind, name)]
    for path, selector, heard in others:
        start(path, selector, heard, {})

    def look_again() -> None:  # a watch that was cut, or hangs, tells late
        try:
            for path, selector, heard in others:
                for item in api.request("GET", path, query=selector)["items"]:
                    heard("MODIFIED", item)
        except ApiError as error:
            fail(error)
        _hear(news, 0)

    try:
        verdict, admission = None, Admission(api, state)
        while verdict is None:
            _hear(news, api.patience.pause)
            logs.follow_new()
            admission.heed(time.monotonic())
            clock.heed(state, time.monotonic())
            logs.say_once(standing(state))
            if decide(state, clock, limits, time.monotonic()):
                look_again()
                clock.heed(state, time.monotonic())
                verdict = decide(state, clock, limits, time.monotonic())
        verdict = weighed(verdict, state, is_stored())
        if verdict.outcome == "succeeded":
            logs.wait(limits.settle)
        for line in (*remarks(state), f"{verdict.outcome}: {verdict.cause}"):  # before our own deleting has its say
            logs.say(line)
        delete(api, kind, name, uid)
        await_gone(api, kind, name, partial(_hear, news, api.patience.pause))
        logs.wait(limits.settle)
        _hear(news, 0)
        if verdict.run and not verdict.run.message and (line := logs.last_line(verdict.run)):
            verdict = replace(verdict, cause=f"{verdict.cause}: {line}")
        return Ran(verdict, list(state.runs.values()), clock.up is not None)
    except (SystemExit, KeyboardInterrupt):
        delete(api, kind, name, uid)
        logs.say("deleted, since the step that launched it was stopped")
        logs.wait(3 * limits.settle)
        raise
    finally:
        stopped.set()


def _beside(kind: JobKind, name: str) -> list[tuple[str, dict[str, str]]]:
    """Where to look, and with which selector, for what there is of a job beside itself: its pods, and events about it."""
    subjects = (name, f"{name}-node-0") if kind == "trainjob" else (name,)
    events = [(EVENTS, {"fieldSelector": f"involvedObject.name={about}"}) for about in subjects]
    return [(PODS, {"labelSelector": f"{POD_LABEL[kind]}={name}"}), *events]


def _hear(news: "queue.SimpleQueue[Callable[[], None]]", seconds: float) -> None:
    """All that is new, after waiting for it at most so long."""
    try:
        news.get(seconds > 0, seconds)()
        while True:
            news.get_nowait()()
    except queue.Empty:
        return
