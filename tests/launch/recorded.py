"""The objects of a cluster as of now: what was recorded of a training job comes true when its moment has come."""

import heapq
import json
import lzma
import re
import threading
import time
import uuid
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

RECORDINGS = Path(__file__).parent / "recordings"
FIRST_VERSION = 1000
FOLLOW_RECORDED_DELETE = 5.0  # a client's delete this many seconds before the recorded one is taken for that one
# After a delete, from the recordings: the mark, the containers' end, the pod's end.
MARKED, ENDED, GONE = 0.06, 0.95, 1.74
JOB_NAME = "training.kubeflow.org/job-name"
REPLICA_TYPE = "training.kubeflow.org/replica-type"
JOBS = ("pytorchjobs", "trainjobs")

Json = dict[str, Any]


class ApiError(Exception):
    """An answer other than 2xx, with its metav1 Status."""

    def __init__(self, code: int, reason: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.code = code
        self.status: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
        self.status |= ({"reason": reason} if reason else {}) | ({"details": details} if details else {}) | {"code": code}


class Change(NamedTuple):
    due: float
    number: int  # keeps the order of changes that are due together
    job: str  # the uid
    resource: str
    type: str
    object: Json


class Past(NamedTuple):
    version: int
    resource: str
    type: str
    object: Json


@dataclass
class Run:
    """One container's life and its log. `end` is None as long as none is recorded."""

    attempt: int
    start: float
    end: float | None = None
    lines: list[tuple[float, str]] = field(default_factory=list)


@dataclass
class Job:
    """One job that a client created, and the recording that it follows."""

    uid: str
    start: float
    epoch: datetime
    overlay: Json  # what the client set, kept over all recorded states
    runs: dict[str, list[Run]]  # by the pod's uid
    lost: tuple[float, float] | None  # while the node does not answer
    own_delete: tuple[float, str] | None

    def is_lost(self, now: float) -> bool:
        return self.lost is not None and self.lost[0] <= now < self.lost[1]

    def stamp(self, moment: float) -> datetime:
        return self.epoch + timedelta(seconds=moment - self.start)


def load(scenario: str) -> Json:
    """A recording by its name or the number that it begins with."""
    (path,) = [path for path in RECORDINGS.glob("*.json.xz") if path.name.split(".")[0].split("-")[0] == scenario.split("-")[0]]
    recording: Json = json.loads(lzma.decompress(path.read_bytes()))
    if "changes" in recording:  # the job's creation comes first, though a pod's watch may have told of the pod before
        recording["changes"].sort(key=lambda change: change["resource"] not in JOBS or change["type"] != "ADDED")
    return recording


def merged(target: object, patch: object, *, keep_null: bool = False) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None and not keep_null:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value, keep_null=keep_null)
    return result


def rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Objects:
    """All objects, their past, and what is still to come. Hold `changed` around every call."""

    def __init__(self, scenarios: Sequence[str], speed: float) -> None:
        self.changed = threading.Condition()
        self.scenarios = scenarios
        self.speed = speed
        self.opened = time.monotonic()
        self.ahead = 0.0
        self.past: list[Past] = []
        self.pending: list[Change] = []
        self.state: dict[tuple[str, str, str], Json] = {}
        self.jobs: dict[str, Job] = {}
        self.numbers = 0

    def now(self) -> float:
        return (time.monotonic() - self.opened) * self.speed + self.ahead

    def version(self) -> int:
        return FIRST_VERSION + len(self.past)

    def advance(self) -> None:
        """Let come true what is due."""
        now = self.now()
        while self.pending and self.pending[0].due <= now:
            change = heapq.heappop(self.pending)
            self.apply(change.resource, change.type, change.object)

    def wait(self, until: float) -> None:
        """Until something changes or that moment, whichever is first."""
        if self.pending:
            until = min(until, self.pending[0].due)
        self.changed.wait(min(max(0.0, until - self.now()) / self.speed, 3600))

    def apply(self, resource: str, kind: str, item: Json) -> Json:
        job = self.jobs.get(item["metadata"].get("uid", ""))
        if job:
            item = merged(item, job.overlay)
        item["metadata"]["resourceVersion"] = str(self.version() + 1)
        key = (resource, item["metadata"].get("namespace", ""), item["metadata"]["name"])
        if kind == "DELETED":
            self.state.pop(key, None)
        else:
            self.state[key] = item
        self.past.append(Past(self.version() + 1, resource, kind, item))
        self.changed.notify_all()
        return item

    def push(self, due: float, job: str, resource: str, kind: str, item: Json) -> None:
        self.numbers += 1
        heapq.heappush(self.pending, Change(due, self.numbers, job, resource, kind, item))

    def all(self, resource: str, namespace: str) -> list[Json]:
        return [item for (kind, space, _), item in self.state.items() if kind == resource and namespace in ("", space)]

    def job_of(self, pod: Json) -> Job | None:
        return next((job for job in self.jobs.values() if pod["metadata"].get("uid") in job.runs), None)

    def create_job(self, body: Json, namespace: str) -> Json:
        """The next recording begins, under the names that the client chose."""
        name = body["metadata"]["name"]
        recording = load(self.scenarios[min(len(self.jobs), len(self.scenarios) - 1)])
        text = json.dumps(recording).replace("@JOB@", name).replace("@NAMESPACE@", namespace)
        if self.jobs:  # the same recording once more is other objects
            salt = str(len(self.jobs))
            text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", lambda m: str(uuid.uuid5(uuid.UUID(m[0]), salt)), text)
        recording = json.loads(text)
        # Pods of an earlier job of this name go first: the operator cannot make others of the same names before.
        earlier = [change.due for change in self.pending if change.object["metadata"]["name"].startswith(f"{name}-")]
        start = max([self.now(), *earlier])
        first, *rest = recording["changes"]
        job = _job(recording, start)
        kept = ("labels", "annotations", "ownerReferences", "finalizers")
        job.overlay = {"metadata": {key: body["metadata"][key] for key in kept if key in body["metadata"]}}
        self.jobs[job.uid] = job
        specs = body["spec"].get("pytorchReplicaSpecs", {})
        templates = {role.lower(): spec.get("template", {}) for role, spec in specs.items()}
        for change in rest:
            if change["resource"] == "pods":
                labels = change["object"]["metadata"]["labels"]
                labels |= templates.get(labels.get(REPLICA_TYPE), {}).get("metadata", {}).get("labels", {})
            self.push(start + change["t"], job.uid, change["resource"], change["type"], change["object"])
        return self.apply(first["resource"], "ADDED", first["object"])

    def patch(self, resource: str, item: Json, patch: Json) -> Json:
        job = self.jobs.get(item["metadata"].get("uid", ""))
        if job:
            job.overlay = merged(job.overlay, patch, keep_null=True)
        return self.apply(resource, "MODIFIED", merged(deepcopy(item), patch))

    def delete(self, resource: str, item: Json, *, foreground: bool) -> Json:
        """As recorded where the recording has this delete about now, else as deletes were recorded."""
        job = self.jobs.get(item["metadata"]["uid"])
        now = self.now()
        if job is None and resource != "pods":
            return self.apply(resource, "DELETED", deepcopy(item))
        if job is None:
            self._stop(item, now)
            return item
        if job.own_delete and job.own_delete[1] == ("Foreground" if foreground else "Background"):
            early = job.own_delete[0] - now
            if 0 <= early <= FOLLOW_RECORDED_DELETE:
                self.ahead += early
                self.advance()
                return item
        self.pending = [change for change in self.pending if change.job != job.uid]
        heapq.heapify(self.pending)
        ours = [pod for pod in self.all("pods", "") if pod["metadata"].get("uid") in job.runs]
        gone = max([now, *(self._stop(pod, now) for pod in ours)])
        item = deepcopy(item)
        if not foreground:
            return self.apply(resource, "DELETED", item)
        item["metadata"] |= {"deletionTimestamp": rfc3339(job.stamp(now)), "deletionGracePeriodSeconds": 0}
        item["metadata"]["finalizers"] = [*item["metadata"].get("finalizers", []), "foregroundDeletion"]
        self.push(gone + 0.1, job.uid, resource, "DELETED", deepcopy(item))
        return self.apply(resource, "MODIFIED", item)

    def _stop(self, pod: Json, now: float) -> float:
        """Mark, end and remove a pod; on a lost node once that is back. Returns when it is gone."""
        job = self.job_of(pod)
        uid = job.uid if job else ""
        stamp = rfc3339(job.stamp(now + 30) if job else datetime.now(UTC))
        marked = deepcopy(pod)
        marked["metadata"] = {"deletionTimestamp": stamp, "deletionGracePeriodSeconds": 30} | marked["metadata"]
        self.push(now + MARKED, uid, "pods", "MODIFIED", marked)
        begin = job.lost[1] if job and job.lost and job.is_lost(now) else now
        ended = deepcopy(marked)
        running = [status for status in ended["status"].get("containerStatuses", []) if "running" in status["state"]]
        if not running:
            self.push(begin + 2 * MARKED, uid, "pods", "DELETED", ended)
            return begin + 2 * MARKED
        for status in running:
            started = status["state"]["running"].get("startedAt")
            end = {"exitCode": 143, "reason": "Error", "startedAt": started, "finishedAt": stamp}
            status |= {"state": {"terminated": end}, "ready": False, "started": False}
        ended["status"]["phase"] = "Failed"
        for run in job.runs.get(pod["metadata"]["uid"], []) if job else []:
            run.end = min(run.end or begin + ENDED, begin + ENDED)
        self.push(begin + ENDED, uid, "pods", "MODIFIED", ended)
        self.push(begin + GONE, uid, "pods", "DELETED", deepcopy(ended))
        return begin + GONE


def _job(recording: Json, start: float) -> Job:
    made = recording["changes"][0]["object"]["metadata"]
    moments = {action["what"]: start + action["t"] for action in recording["actions"]}
    deletes = [(at, what.rsplit("=")[-1]) for what, at in moments.items() if re.match("DELETE (pytorch|train)job,", what)]
    lost = moments.get("the node's agent stops answering")
    return Job(
        uid=made["uid"],
        start=start,
        epoch=datetime.fromisoformat(made["creationTimestamp"]),
        overlay={},
        runs=_runs(recording, start, moments["recording ends"]),
        lost=(lost, moments["the node is back"]) if lost is not None else None,
        own_delete=deletes[0] if deletes else None,
    )


def _runs(recording: Json, start: float, last: float) -> dict[str, list[Run]]:
    """Every pod's containers, as the watch saw them begin and end, their log's lines spread evenly over that time."""
    by_pod: dict[str, list[Run]] = {}
    logs = {name: iter(texts) for name, texts in recording["logs"].items()}
    for change in recording["changes"]:
        if change["resource"] != "pods":
            continue
        moment, pod = start + change["t"], change["object"]
        runs = by_pod.setdefault(pod["metadata"]["uid"], [])
        for status in pod["status"].get("containerStatuses", []):
            attempt = status["restartCount"]
            if not status["state"].keys().isdisjoint({"running", "terminated"}) and (not runs or runs[-1].attempt < attempt):
                runs.append(Run(attempt, moment))
                text = next(logs.get(pod["metadata"]["name"], iter(())), "")
                runs[-1].lines = [(0.0, line) for line in text.splitlines()]
            over = [run for run in runs if run.attempt < attempt or "terminated" in status["state"]]
            for run in over:
                run.end = moment if run.end is None else run.end
        if change["type"] == "DELETED" and runs and runs[-1].end is None:
            runs[-1].end = moment
    for run in (run for runs in by_pod.values() for run in runs):
        step = ((run.end or last) - run.start) / max(1, len(run.lines))
        run.lines = [(run.start + position * step, line) for position, (_, line) in enumerate(run.lines)]
    return by_pod
