"""What is said of a training job and its ranks: how it stands, how one ended, and why one does not run."""

import re
import signal

from components.launch.state import Incident, Run, State, disruption, succeeded


def standing(state: State) -> str:
    """How the job stands, in a line: to be shown when it changes."""
    if state.is_suspended:
        return f"suspended: waits to be admitted{f': {state.waits_for}' if state.waits_for else ''}"
    if not state.replicas or succeeded(state) or state.gone:
        return ""
    up = [replica for replica in state.replicas if state.is_up(replica)]
    line = f"{len(up)} of {len(state.replicas)} pods up"
    if lost := [replica for replica in up if state.is_out_of_touch(replica)]:
        return f"{line}, out of touch: {', '.join(lost)} (their node does not answer)"
    down = [replica for replica in state.replicas if replica not in up]
    refused = state.messages(*REFUSED) if any(state.last_pod(replica) is None for replica in down) else []
    return "; ".join([line, *phases(state, down[:3]), *(_without_pod_names(message) for message in refused[-1:])])


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


REFUSED = ("FailedCreatePod", "FailedCreateService", "FailedCreate", "TrainJobResourcesCreationFailed")
"""Reasons of events about what the cluster does not let the operator create: a PyTorchJob's, then a TrainJob's."""

HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError") + (
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
"""Reasons of a container that waits for what will not come."""


def waiting_of(state: State, replica: str) -> list[dict[str, str]]:
    status = (state.last_pod(replica) or {}).get("status", {})
    containers = status.get("containerStatuses", []) + status.get("initContainerStatuses", [])
    return [container["state"]["waiting"] for container in containers if container.get("state", {}).get("waiting")]


def unschedulable(state: State, replica: str) -> str:
    for entry in (state.last_pod(replica) or {}).get("status", {}).get("conditions") or []:
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            return str(entry.get("message", "Unschedulable"))
    return ""


def phases(state: State, replicas: list[str]) -> list[str]:
    lines = []
    for replica in replicas:
        pod = state.last_pod(replica)
        reasons = unschedulable(state, replica) or ", ".join(
            filter(None, (waiting.get("reason") for waiting in waiting_of(state, replica)))
        )
        phase = pod.get("status", {}).get("phase", "Pending") if pod else "no pod"
        lines.append(f"{replica} {phase}{f' ({reasons})' if reasons else ''}")
    return lines


def _without_pod_names(message: str) -> str:
    """So that the same refusal, told again of the next pod, is the same line."""
    return re.sub(r'pods? "[^"]*" is', "a pod is", message.removeprefix("Error creating: "))
