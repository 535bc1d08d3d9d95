"""What is known of a training job: its object, its pods and every life of their containers, and the events about them.

Fed with what the watches tell, in any order between them. It remembers what the cluster forgets: pods that were deleted, and
containers that were replaced. A job's counters and conditions flap, vanish and come late; the ranks' truth is in the pods.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from components.launch.api import Object

SUCCEEDED = ("Succeeded", "Complete")  # a PyTorchJob's word, a TrainJob's
RECOVERED = 60.0
"""Seconds that a replica has run again after an incident, for the next one not to be its consequence."""


@dataclass
class Run:
    """One life of a rank's container. `number` counts the replica's lives from 1, `restart` those within one pod.

    swept: It ended while its pod was being deleted: by somebody, not by itself.
    disruption: Why the cluster took the pod, in its own word (PreemptionByScheduler, EvictionByEvictionAPI, ...), else ''.
    """

    replica: str
    number: int
    pod: str
    uid: str
    restart: int
    started: str = ""
    finished: str = ""
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    swept: bool = False
    disruption: str = ""
    memory_limit: str = ""

    @property
    def failed(self) -> bool:
        """By itself."""
        return bool(self.exit_code) and not self.swept

    @property
    def out_of_memory(self) -> bool:
        return self.reason == "OOMKilled" and not self.swept


@dataclass(frozen=True)
class Incident:
    """A life that `failed` by itself or whose pod was `taken` away. `when`: '' where nobody saw it."""

    replica: str
    uid: str
    what: str
    when: str


@dataclass
class State:
    """`incidents`: by pod uid and restart, in the order in which they were seen; what comes after removes none.
    `waits_for`: what its queue says that it waits for.
    """

    job: Object | None = None
    gone: bool = False
    pods: dict[str, Object] = field(default_factory=dict)
    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
    events: dict[str, Object] = field(default_factory=dict)
    incidents: dict[tuple[str, int], Incident] = field(default_factory=dict)
    waits_for: str = ""

    def tell_job(self, kind: str, job: Object) -> None:
        self.job = job
        self.gone = kind == "DELETED"

    def tell_event(self, kind: str, event: Object) -> None:
        if kind != "DELETED":
            self.events[event["metadata"]["uid"]] = event

    def tell_pod(self, kind: str, pod: Object) -> None:
        uid, replica = pod["metadata"]["uid"], replica_of(pod)
        self.pods[uid] = {**pod, "present": kind != "DELETED"}
        deleted = kind == "DELETED" or "deletionTimestamp" in pod["metadata"]
        for status in pod.get("status", {}).get("containerStatuses", []):
            count = status.get("restartCount", 0)
            ended = status.get("lastState", {}).get("terminated")
            if ended and count:
                self._tell_run(pod, replica, count - 1, ended, swept=False)
            if ended := status.get("state", {}).get("terminated"):
                self._tell_run(pod, replica, count, ended, swept=deleted)
            elif running := status.get("state", {}).get("running"):
                self._tell_run(pod, replica, count, running, swept=False)
        lives = [run for run in self.runs.values() if run.uid == uid]
        if deleted and not any(run.exit_code == 0 for run in lives):
            restart = max((run.restart for run in lives), default=0)
            self.incidents.setdefault((uid, restart), Incident(replica, uid, "taken", _deleted_at(pod)))

    def _tell_run(self, pod: Object, replica: str, restart: int, state: Object, swept: bool) -> None:
        uid = pod["metadata"]["uid"]
        run = self.runs.get((uid, restart))
        if run is None:
            number = 1 + sum(other.replica == replica for other in self.runs.values())
            run = self.runs[uid, restart] = Run(replica, number, pod["metadata"]["name"], uid, restart)
            limits = pod["spec"]["containers"][0].get("resources", {}).get("limits", {})
            run.memory_limit = limits.get("memory", "")
        run.started = state.get("startedAt") or run.started
        run.disruption = run.disruption or disruption(pod)
        if "exitCode" in state and run.exit_code is None:
            run.exit_code = state["exitCode"]
            run.reason, run.message = state.get("reason", ""), state.get("message", "").strip()
            run.finished, run.swept = state.get("finishedAt", ""), swept
            if run.failed:
                self.incidents.setdefault((uid, restart), Incident(replica, uid, "failed", run.finished))

    # --- what follows from it ---

    @property
    def replicas(self) -> list[str]:
        """All that the job asks for, by name."""
        if self.job is None:
            return []
        spec = self.job["spec"]
        if "trainer" in spec:
            return [f"node-{index}" for index in range(spec["trainer"].get("numNodes", 1))]
        specs = spec["pytorchReplicaSpecs"]
        return [f"{role.lower()}-{index}" for role in specs for index in range(specs[role].get("replicas", 1))]

    @property
    def has_master(self) -> bool:
        return "master-0" in self.replicas

    @property
    def least(self) -> int:
        """How many replicas have to be up for the training to go on."""
        elastic = (self.job or {}).get("spec", {}).get("elasticPolicy", {})
        return min(len(self.replicas), elastic.get("minReplicas") or len(self.replicas))

    @property
    def is_suspended(self) -> bool:
        return bool((self.job or {}).get("spec", {}).get("suspend")) or self.condition("Suspended") is not None

    def condition(self, *types: str) -> Object | None:
        """The job's condition of one of these types, if its status is True."""
        conditions = (self.job or {}).get("status", {}).get("conditions") or []
        return next((entry for entry in conditions if entry["type"] in types and entry["status"] == "True"), None)

    def last_run(self, replica: str) -> Run | None:
        """Of the replica's youngest pod; None where that has not started."""
        pod = self.last_pod(replica)
        runs = [run for run in self.runs.values() if pod and run.uid == pod["metadata"]["uid"]]
        return max(runs, key=lambda run: run.restart, default=None)

    def last_pod(self, replica: str) -> Object | None:
        return next((pod for pod in reversed(self.pods.values()) if replica_of(pod) == replica), None)

    def is_up(self, replica: str) -> bool:
        """Its youngest container runs or has ended well."""
        run = self.last_run(replica)
        return run is not None and not run.exit_code and not self._waits_again(run)

    def runs_on(self, replica: str) -> bool:
        """Its youngest container has not ended, as far as is known, and its pod is there."""
        pod, run = self.last_pod(replica), self.last_run(replica)
        return pod is not None and pod["present"] and (run is None or run.exit_code is None)

    def _waits_again(self, run: Run) -> bool:
        return run.exit_code is None and any(
            "waiting" in status.get("state", {}) for status in self.pods[run.uid].get("status", {}).get("containerStatuses", [])
        )

    def is_out_of_touch(self, replica: str) -> bool:
        """Its container runs, as far as is known, and its node does not answer."""
        pod, run = self.last_pod(replica), self.last_run(replica)
        conditions = (pod or {}).get("status", {}).get("conditions") or []
        ready = {entry["type"]: entry["status"] for entry in conditions}.get("Ready")
        return run is not None and run.exit_code is None and ready == "False"

    @property
    def all_up(self) -> bool:
        up = sum(map(self.is_up, self.replicas))
        return bool(self.replicas) and up >= self.least

    @property
    def all_ended_well(self) -> bool:
        """Every replica that was ever there, and as many as are needed."""
        seen = [replica for replica in self.replicas if self.last_pod(replica)]
        ended = [run.exit_code == 0 for run in map(self.last_run, seen) if run]
        return len(seen) >= max(1, self.least) and len(ended) == len(seen) and all(ended)

    def failures(self) -> list[Run]:
        """The lives that ended badly by themselves, in the order in which they were seen."""
        return [run for run in self.runs.values() if run.failed]

    def incidents_that_count(self) -> dict[tuple[str, int], Incident]:
        """The earliest of those that one of them may have caused comes first; within a second, the first that was seen.

        What the job recovered from before them is left out. So is a pod that was gone when it was looked for, and that the
        operator says it deleted: the operator had its reason.
        """
        swept = {message.removeprefix("Deleted pod: ") for message in self.messages("SuccessfulDeletePod", "SuccessfulDelete")}
        names = {uid: pod["metadata"]["name"] for uid, pod in self.pods.items()}
        seen = {key: one for key, one in self.incidents.items() if one.when or names[one.uid] not in swept}
        row: dict[tuple[str, int], Incident] = {}
        for key, incident in sorted(seen.items(), key=lambda item: item[1].when):
            if row and all(self._has_recovered(earlier, incident.when) for earlier in row.values()):
                row = {}
            row[key] = incident
        return row

    def _has_recovered(self, incident: Incident, by: str) -> bool:
        """Whether its replica had run again for long enough by then."""
        again = [run.started for run in self.runs.values() if run.replica == incident.replica and run.started >= incident.when]
        if not incident.when or not again:
            return False
        return (datetime.fromisoformat(by) - datetime.fromisoformat(min(again))).total_seconds() > RECOVERED

    def messages(self, *reasons: str) -> list[str]:
        """Messages of the job's and the pods' events with one of these reasons, the latest last."""
        found = [event for event in self.events.values() if event.get("reason") in reasons]
        return [event["message"] for event in sorted(found, key=_when)]


def succeeded(state: State) -> bool:
    """A Master decides alone, as it does for the operator; elastic Workers have to end well all of them."""
    if state.condition(*SUCCEEDED) is None:
        return False
    return state.has_master or state.all_ended_well or state.gone


def replica_of(pod: Object) -> str:
    """`worker-0`; a TrainJob's `node-0`."""
    labels = pod["metadata"].get("labels", {})
    if "training.kubeflow.org/replica-type" in labels:
        return f"{labels['training.kubeflow.org/replica-type']}-{labels['training.kubeflow.org/replica-index']}"
    return f"node-{labels.get('batch.kubernetes.io/job-completion-index', '0')}"


def _deleted_at(pod: Object) -> str:
    """When somebody asked for it; what the object bears is when its grace is over."""
    metadata = pod["metadata"]
    if "deletionTimestamp" not in metadata:
        return ""
    over = datetime.fromisoformat(metadata["deletionTimestamp"])
    asked = over - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
    return asked.strftime("%Y-%m-%dT%H:%M:%SZ")


def disruption(pod: Object) -> str:
    """Why the cluster takes this pod away; '' where it does not."""
    conditions: Sequence[Object] = pod.get("status", {}).get("conditions") or []
    for entry in conditions:
        if entry["type"] == "DisruptionTarget" and entry["status"] == "True":
            return str(entry.get("reason", "disruption"))
    return ""


def _when(event: Object) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((time for time in times if time), "") or event["metadata"].get("creationTimestamp", "")
