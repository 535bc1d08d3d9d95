"""How a training job ends: whether it has, how, and why in one line."""

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from components import errors
from components.launch.state import SUCCEEDED, Incident, Run, State, disruption

Outcome = Literal["succeeded", "user", "retry", "bug"]


@dataclass(frozen=True)
class Limits:
    """In seconds, but for max_restarts.

    start: until all ranks run, the time in a queue (suspended) apart; also after a pod was replaced.
    job: that the ranks may run; 0 for any.
    settle: to wait, once a rank has failed, for what else there is to see of the cause.
    condition: to wait for the operator's word once all ranks have ended well.
    max_restarts: of ranks that failed by themselves.
    """

    start: float = 900.0
    job: float = 0.0
    settle: float = 3.0
    condition: float = 120.0
    max_restarts: int = 3


@dataclass(frozen=True)
class Verdict:
    """`run`: the life whose end is the cause, if one's is."""

    outcome: Outcome
    cause: str
    run: Run | None = None


@dataclass
class Clock:
    """When, by this process's clock, things about the job became so; None while they are not."""

    down: float | None = None
    up: float | None = None
    failed: float | None = None
    ended: float | None = None

    def heed(self, state: State, now: float) -> None:
        waits = not state.all_up and not state.is_suspended
        self.down = (self.down or now) if waits else None
        if state.all_up and self.up is None:
            self.up = now
        self.failed = (self.failed or now) if has_failed(state) else None
        self.ended = (self.ended or now) if state.all_ended_well else None


def decide(state: State, clock: Clock, limits: Limits, now: float) -> Verdict | None:
    """The job's end, as far as it can be known; None while it goes on."""

    def over(since: float | None, seconds: float) -> bool:
        return since is not None and now - since >= seconds

    if succeeded(state) or over(clock.ended, limits.condition):
        return Verdict("succeeded", _success(state))
    if over(clock.failed, limits.settle):
        return failure(state)
    if state.gone:
        return Verdict("retry", "the training job was deleted by someone else while it ran")
    failures = state.failures()
    if clock.failed is None and len(failures) > limits.max_restarts:
        last = failures[-1]
        cause = f"crash loop: {len(failures)} failures for {limits.max_restarts} restarts; the last: {describe(last)}"
        return Verdict("bug", cause, last)
    if over(clock.down, limits.start):
        return not_started(state, limits.start)
    if limits.job and over(clock.up, limits.job):
        return Verdict("user", f"the training ran for longer than its limit of {limits.job:.0f} s: raise job_timeout_minutes")
    return None


def weighed(verdict: Verdict, state: State, is_stored: bool) -> Verdict:
    """The verdict, by what counts: a job has succeeded when its output stands whole where it belongs.

    A user's error stays one: what stands there is then another's.
    """
    if is_stored and verdict.outcome in ("retry", "bug"):
        return Verdict("succeeded", f"its output is whole, though {verdict.cause}")
    if not is_stored and verdict.outcome == "succeeded":
        if state.failures() or state.incidents:
            return failure(state)
        return Verdict("bug", f"{verdict.cause}, but there is no output")
    return verdict


def succeeded(state: State) -> bool:
    """A Master decides alone, as it does for the operator; elastic Workers have to end well all of them."""
    if state.condition(*SUCCEEDED) is None:
        return False
    return state.has_master or state.all_ended_well or state.gone


def has_failed(state: State) -> bool:
    """For good: the operator says so, or a rank has failed whose pod nothing starts again, or ran out of memory.

    Nothing is started again once the operator says that it is over: an elastic job has succeeded for it with its first Worker.
    """
    if state.condition("Failed"):
        return True
    if state.condition(*SUCCEEDED) and not succeeded(state) and not any(map(state.runs_on, state.replicas)):
        return True
    never = {role.lower() for role, spec in _specs(state).items() if spec.get("restartPolicy") == "Never"}
    return any(run.out_of_memory or run.replica.rpartition("-")[0] in never for run in state.failures())


def failure(state: State) -> Verdict:
    """Why it failed. One rank's end makes the others fail or be deleted: what was seen first counts.

    But for what says more than a plain code: out of memory, an error that the user can mend, a kill.
    """
    failures = state.failures()
    for run in failures:
        if run.out_of_memory:
            limit = f" (limit {run.memory_limit})" if run.memory_limit else ""
            mend = "raise memory_per_worker or lower micro_batch_tokens"
            return Verdict("user", f"out of memory in {run.replica}{limit}: {mend}", run)
    word = str((state.condition("Failed") or {}).get("message", ""))
    if "deadline" in word and not failures:
        return Verdict("retry", f"the operator ended it: {word}")
    if "backoff limit" in word and not failures:  # its pods are deleted by then
        return Verdict("bug", f"the operator gave it up: {word}")
    row = state.incidents_that_count()
    first = next(iter(row.values()), None)
    if first and first.what == "taken":  # those that failed after it failed because of it
        return Verdict("retry", taken_away(state, first))
    failing = [run for run in failures if (run.uid, run.restart) in row]
    telling: list[Callable[[Run], bool]] = [
        lambda run: run.exit_code == errors.UserError.exit_code,
        # Ranks whose peers have gone may end by SIGTERM too.
        lambda run: bool(run.disruption) or ((run.exit_code or 0) > 128 and run.exit_code != 128 + signal.SIGTERM),
        lambda run: run.exit_code == errors.TryAgainError.exit_code,
        lambda run: True,
    ]
    for tells in telling:
        for run in failing or failures:  # what failed before and was started again counts where nothing else did
            if tells(run):
                restarts = max(other.number for other in failures if other.replica == run.replica) - 1
                return Verdict(outcome_of(run), describe(run) + (f", after {restarts} restart(s)" if restarts else ""), run)
    return Verdict("retry", f"no rank failed by itself; the operator says: {word}")


def outcome_of(run: Run) -> Outcome:
    if run.exit_code == errors.UserError.exit_code:
        return "user"
    killed = (run.exit_code or 0) > 128 or run.exit_code == errors.TryAgainError.exit_code
    return "retry" if killed or run.disruption else "bug"


def describe(run: Run) -> str:
    """`worker-1 exited with 1: what it said last`."""
    said = run.message.splitlines()[-1].strip() if run.message else ""
    code = run.exit_code or 0
    if run.disruption:
        end = f"was {DISRUPTIONS.get(run.disruption, 'taken away')} ({run.disruption}, {code})"
    elif run.out_of_memory:
        end = f"was out of memory ({code}, limit {run.memory_limit})"
    elif code - 128 in set(signal.Signals):
        end = f"was killed by {signal.Signals(code - 128).name} ({code})"
    else:
        end = f"exited with {code}"
    return f"{run.replica} {end}" + (f": {said}" if said else "")


DISRUPTIONS = {
    "PreemptionByScheduler": "preempted",
    "EvictionByEvictionAPI": "evicted",
    "TerminationByKubelet": "evicted by its node",
    "DeletionByTaintManager": "lost with its node",
    "DeletionByPodGC": "lost with its node",
}
"""Reasons of a pod's DisruptionTarget condition, in a word."""


def taken_away(state: State, incident: Incident) -> str:
    pod = state.pods[incident.uid]
    reason = disruption(pod)
    how = f"was {DISRUPTIONS.get(reason, 'taken away')} ({reason})" if reason else "was deleted from outside"
    return f"the pod of {incident.replica} {how}" + (f", on {node}" if (node := pod.get("spec", {}).get("nodeName")) else "")


def not_started(state: State, seconds: float) -> Verdict:
    """Why the ranks that are missing are missing: what the user can mend first."""
    after = f"after {seconds:.0f} s"
    missing = [replica for replica in state.replicas if not state.is_up(replica)]
    some = f"{len(missing)} of {len(state.replicas)} pods ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''})"
    for replica in missing:
        for waiting in _waiting(state, replica):
            if waiting.get("reason") in HOPELESS:
                return Verdict("user", f"{replica} cannot start {after}: {waiting['reason']}: {waiting.get('message', '')}")
    if refused := state.messages(*REFUSED):
        return Verdict("user", f"{some} cannot be created {after}: {refused[-1].removeprefix('Error creating: ')}")
    for replica in missing:
        if message := _unschedulable(state, replica):
            return Verdict("retry", f"{some} cannot be scheduled {after}: {message}")
    if not state.pods:
        said = "; ".join(state.messages("FailedScheduling", "Unschedulable")) or "the job has no pods"
        return Verdict("user", f"{said} {after}: is the training operator running? python -m components.doctor tells")
    crashed = [run for run in map(state.last_run, missing) if run and run.exit_code]
    if crashed:
        return Verdict(outcome_of(crashed[0]), f"{describe(crashed[0])}, and did not start again {after}")
    return Verdict("retry", f"{some} do not run {after}: {'; '.join(_phases(state, missing))}")


REFUSED = ("FailedCreatePod", "FailedCreateService", "FailedCreate", "TrainJobResourcesCreationFailed")
"""Reasons of events about what the cluster does not let the operator create: a PyTorchJob's, then a TrainJob's."""

HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError") + (
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
"""Reasons of a container that waits for what will not come."""


def standing(state: State) -> str:
    """How the job stands, in a line: to be shown when it changes."""
    if state.is_suspended:
        return "suspended: waits to be admitted"
    if not state.replicas or succeeded(state) or state.gone:
        return ""
    up = [replica for replica in state.replicas if state.is_up(replica)]
    line = f"{len(up)} of {len(state.replicas)} pods up"
    if lost := [replica for replica in up if state.is_out_of_touch(replica)]:
        return f"{line}, out of touch: {', '.join(lost)} (their node does not answer)"
    down = [replica for replica in state.replicas if replica not in up]
    refused = state.messages(*REFUSED) if any(state.last_pod(replica) is None for replica in down) else []
    return "; ".join([line, *_phases(state, down[:3]), *(_without_pod_names(message) for message in refused[-1:])])


def remarks(state: State) -> list[str]:
    """What is worth knowing of a job that ended: every rank's end, and what happened on the way."""
    lines = []
    for run in sorted(state.runs.values(), key=lambda run: (run.replica, run.number)):
        again = any(other.replica == run.replica and other.number > run.number for other in state.runs.values())
        then = ", and was started again" if again else ""
        if run.exit_code is None:
            lines.append(f"{run.replica} {'was lost' if again or state.gone else 'is stopped before its end'}{then}")
        elif run.failed or run.disruption:
            lines.append(f"{describe(run)}{then}")
        elif run.swept and run.exit_code:
            how = "deleted" if again else "stopped before its end"
            lines.append(f"{run.replica} was {how} ({run.exit_code}){then}")
    return lines


def _success(state: State) -> str:
    ended = sum(run.exit_code == 0 for run in map(state.last_run, state.replicas) if run)
    return f"{ended} of {len(state.replicas)} pods ended well"


def _specs(state: State) -> dict[str, dict[str, str]]:
    spec = (state.job or {}).get("spec", {})
    return spec.get("pytorchReplicaSpecs") or ({"node": {"restartPolicy": "Never"}} if "trainer" in spec else {})


def _waiting(state: State, replica: str) -> list[dict[str, str]]:
    status = (state.last_pod(replica) or {}).get("status", {})
    containers = status.get("containerStatuses", []) + status.get("initContainerStatuses", [])
    return [container["state"]["waiting"] for container in containers if container.get("state", {}).get("waiting")]


def _unschedulable(state: State, replica: str) -> str:
    for entry in (state.last_pod(replica) or {}).get("status", {}).get("conditions") or []:
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            return str(entry.get("message", "Unschedulable"))
    return ""


def _phases(state: State, replicas: list[str]) -> list[str]:
    lines = []
    for replica in replicas:
        pod = state.last_pod(replica)
        reasons = _unschedulable(state, replica) or ", ".join(
            filter(None, (waiting.get("reason") for waiting in _waiting(state, replica)))
        )
        phase = pod.get("status", {}).get("phase", "Pending") if pod else "no pod"
        lines.append(f"{replica} {phase}{f' ({reasons})' if reasons else ''}")
    return lines


def _without_pod_names(message: str) -> str:
    """So that the same refusal, told again of the next pod, is the same line."""
    return re.sub(r'pods? "[^"]*" is', "a pod is", message.removeprefix("Error creating: "))
