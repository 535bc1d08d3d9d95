"""A training job on Kubernetes, from its creation to its end: one job for a task of a run, never two, and none left behind."""

import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from components.errors import FailedError, NeverStartedError, StageError, TryAgainError, UserError
from components.launch.access import missing
from components.launch.api import EVENTS, JOBS, PODS, TRAIN_JOBS, Api, ApiError, NoClusterError, Object, connect
from components.launch.job import DIGEST, RUN_LABEL, TASK_LABEL, Job, label_value, manifest
from components.launch.logs import Logs
from components.launch.state import Run, State
from components.launch.verdict import Clock, Limits, Verdict, decide, remarks, standing, weighed
from components.launch.watch import Watch, run_safely
from components.parameters import JobKind

PATHS: dict[JobKind, str] = {"pytorchjob": JOBS, "trainjob": TRAIN_JOBS}
POD_LABEL: dict[JobKind, str] = {"pytorchjob": "training.kubeflow.org/job-name", "trainjob": "jobset.sigs.k8s.io/jobset-name"}
INSTALL: dict[JobKind, str] = {"pytorchjob": "Kubeflow training operator", "trainjob": "Kubeflow Trainer"}
GRACE = 180.0  # seconds that pods may take to go


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


def create(api: Api, kind: JobKind, body: Object, start: float = math.inf) -> Object:
    """The job, new or found: one that this task made with the same manifest is taken over, unless it has failed.

    Args:
        start: Seconds that it may take, the operator's webhook being away; but a few slow answers are waited for.

    Raises:
        UserError: the cluster refuses it, or the name is somebody else's.
        NeverStartedError: it took longer.
    """
    name, until = body["metadata"]["name"], time.monotonic() + GRACE
    while True:
        try:
            return api.request("POST", PATHS[kind], body, {"fieldValidation": "Strict"}, max(start, 6 * api.patience.answer))
        except TryAgainError as error:
            raise NeverStartedError(f"the training job cannot be created: {error}") from None
        except ApiError as error:
            if error.status != 409:
                raise refused(error, kind, api.namespace) from None
        there = get(api, kind, name)
        if there and "deletionTimestamp" not in there["metadata"]:
            if not is_ours(there, body):
                raise UserError(f"there is a {there['kind']} {name} that is not this run's: delete it, or submit the run again")
            same = there["metadata"].get("annotations", {}).get(DIGEST) == body["metadata"]["annotations"][DIGEST]
            if same and not State(job=there).condition("Failed"):
                return there
            delete(api, kind, name, there["metadata"]["uid"])
            await_gone(api, kind, name, partial(time.sleep, api.patience.pause))
        if time.monotonic() > until:
            raise TryAgainError(f"an earlier {body['kind']} {name} is still being deleted")
        time.sleep(api.patience.pause)


def is_ours(there: Object, body: Object) -> bool:
    """Of this very task of this very run."""
    theirs, ours = there["metadata"].get("labels", {}), body["metadata"]["labels"]
    return all(theirs.get(key) == ours.get(key) for key in (RUN_LABEL, TASK_LABEL))


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
        verdict, stood = None, ""
        while verdict is None:
            _hear(news, api.patience.pause)
            logs.follow_new()
            clock.heed(state, time.monotonic())
            if (stands := standing(state)) and stands != stood:
                logs.say(stands)
                stood = stands
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


def delete(api: Api, kind: JobKind, name: str, uid: str) -> None:
    """Delete the job. One that is gone already, or is another one by now, is left alone."""
    options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
    try:
        api.request("DELETE", f"{PATHS[kind]}/{name}", options)
    except ApiError as error:
        if error.status not in (404, 409):
            raise refused(error, kind, api.namespace) from None


def await_gone(api: Api, kind: JobKind, name: str, pause: Callable[[], None]) -> None:
    """Until the job has no pods: they outlive it by their grace, still write, and would meet those of a job that came next."""
    until = time.monotonic() + GRACE
    while api.request("GET", PODS, query={"labelSelector": f"{POD_LABEL[kind]}={name}"})["items"]:
        if time.monotonic() > until:
            print(f"warning: pods of {name} are still there {GRACE:.0f} s after it was deleted", flush=True)
            return
        pause()


def delete_run(pipeline_run_id: str, namespace: str = "") -> list[str]:
    """Delete every training job of a pipeline run. Their names; none where there is no cluster."""
    try:
        api = connect(namespace)
    except NoClusterError:
        return []
    found = []
    for kind, path in PATHS.items():
        try:
            jobs = api.request("GET", path, query={"labelSelector": f"{RUN_LABEL}={label_value(pipeline_run_id)}"})["items"]
        except ApiError as error:
            if error.status == 404:  # that operator is not installed
                continue
            raise refused(error, kind, api.namespace) from None
        for job in jobs:
            delete(api, kind, job["metadata"]["name"], job["metadata"]["uid"])
            print(f"clean_up: training job {job['metadata']['name']} is deleted", flush=True)
            found.append(job["metadata"]["name"])
    return found


def get(api: Api, kind: JobKind, name: str) -> Object | None:
    try:
        return api.request("GET", f"{PATHS[kind]}/{name}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise refused(error, kind, api.namespace) from None


def owner(api: Api, pod_name: str) -> Object | None:
    """What a job of ours is to die with: the workflow that our own pod belongs to, else the pod; None if it cannot be read."""
    if not pod_name:
        return None
    try:
        pod = api.request("GET", f"{PODS}/{pod_name}")
    except ApiError:
        return None
    references: list[Any] = pod["metadata"].get("ownerReferences", [])
    found = references[0] if references else {"apiVersion": "v1", "kind": "Pod", **pod["metadata"]}
    return {key: found[key] for key in ("apiVersion", "kind", "name", "uid")}


def refused(error: ApiError, kind: JobKind, namespace: str) -> UserError:
    """What a refusal means to the user. The webhook's are 403 as those of missing rights are."""
    if error.status == 401:
        return UserError(
            f"the cluster does not accept our credentials ({error.message}): is the service account's token valid?"
        )
    if error.status == 404 and not error.reason:  # an API that is not there answers with plain text
        return UserError(f"the cluster does not know {kind}s: install the {INSTALL[kind]}, or choose another launcher")
    if error.status == 403 and "admission webhook" not in error.message and "violates PodSecurity" not in error.message:
        return UserError(f"no rights in namespace {namespace}: {error.message}; see k8s/base")
    return UserError(f"the cluster refuses the training job: {error.message}")


def _hear(news: "queue.SimpleQueue[Callable[[], None]]", seconds: float) -> None:
    """All that is new, after waiting for it at most so long."""
    try:
        news.get(seconds > 0, seconds)()
        while True:
            news.get_nowait()()
    except queue.Empty:
        return
