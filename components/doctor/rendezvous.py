"""Two pods as large as a job's, with its image, each of which connects to the other: as ranks will, but in seconds."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from components.doctor.finding import Finding, ask
from components.doctor.pods import LABELS, pod
from components.doctor.room import GPU
from components.launch.access import allowed, phrase
from components.launch.api import PODS, Api, ApiError, AwayError, Object
from components.launch.job import Job

SECONDS = 600.0  # a training image has gigabytes
UNSCHEDULABLE_SECONDS = 60.0
"""That a pod may have no place before it is given up."""
POLL_SECONDS = 1.0
NEEDED = tuple((verb, "", "pods", "") for verb in ("create", "get", "delete"))
PORT = 29500  # torchrun's own
HOPELESS = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError")

NO_PLACE = (
    "ask for less in each worker, or make room; where an autoscaler adds nodes for a pod that waits, this is too short: the "
    "job itself waits for start_timeout_minutes"
)

# The first pod waits for the second, then connects back to where that came from: ranks need both ways. It waits for as long as
# the second may take to get a place and the image.
SCRIPT = """
import os, socket, time
me, other, port, wait_seconds = (os.environ[name] for name in ("POD_IP", "OTHER", "PORT", "WAIT_SECONDS"))
port = int(port)

def wait(seconds):
    server.settimeout(seconds)
    return server.accept()[1][0]

def connect(to):
    until = time.time() + 60
    while True:
        try:
            return socket.create_connection((to, port), 5, (me, 0)).close()
        except OSError as error:
            if time.time() > until:
                raise SystemExit(f"no connection from {me} to {to}:{port}: {error}")
            time.sleep(0.5)

server = socket.create_server((me, port))
try:
    if other:
        connect(other)
        wait(60)
    else:
        connect(wait(float(wait_seconds)))
except TimeoutError:
    raise SystemExit(f"nobody connected to {me}:{port}")
"""


def meet(api: Api, job: Job, service_account: str) -> Finding:
    """Start the pods, wait for both, and delete them whatever happens."""
    if lacking := [phrase(right) for right in NEEDED if not allowed(api, right)]:
        return Finding("skipped", f"needs the right to {', '.join(lacking)}")
    started = time.monotonic()
    name = f"adapt-doctor-{uuid.uuid4().hex[:8]}"
    with _deleted(api, [f"{name}-0", f"{name}-1"]) as left:
        finding = _meet(api, name, job, service_account, started)
    if left:
        return Finding("failed", f"{finding.found}; not deleted: {', '.join(left)}", f"kubectl delete pod {' '.join(left)}")
    return finding


def _meet(api: Api, name: str, job: Job, service_account: str, started: float) -> Finding:
    ask(api, "POST", PODS, _pod(f"{name}-0", job, service_account, ""))
    address = ""
    states: dict[str, str] = {}
    no_place_since: dict[str, float] = {}
    while (now := time.monotonic()) - started < SECONDS:
        names = [f"{name}-0", *([f"{name}-1"] if address else [])]
        for each in names:
            there = ask(api, "GET", f"{PODS}/{each}")
            states[each] = _state(there)
            status = there.get("status", {})
            if not address and status.get("phase") == "Running" and (address := status.get("podIP", "")):
                ask(api, "POST", PODS, _pod(f"{name}-1", job, service_account, address))
            if states[each].startswith("failed"):
                return Finding("failed", f"{each}: {states[each]}", _mend(states[each]))
            if not (unmet := _no_place(there)):
                no_place_since.pop(each, None)
            elif now - no_place_since.setdefault(each, now) >= UNSCHEDULABLE_SECONDS:
                return Finding("failed", f"{each} has had no place for {UNSCHEDULABLE_SECONDS:.0f} s: {unmet}", NO_PLACE)
        if len(names) == 2 and set(states.values()) == {"ended"}:
            seconds = time.monotonic() - started
            return Finding("ok", f"the image was pulled, and each pod reached the other on port {PORT} ({seconds:.0f} s)")
        time.sleep(POLL_SECONDS)
    said = ", ".join(f"{each} {state}" for each, state in states.items() if state != "ended")
    return Finding("failed", f"not done after {SECONDS:.0f} s: {said}", "make room for the pods, or ask who runs the cluster")


def _pod(name: str, job: Job, service_account: str, other: str) -> Object:
    """As large as the job's: the second one too, if the job has two."""
    asked = {"cpu": job.cpu, "memory": job.memory, GPU: str(job.num_gpus or "")}
    given = {resource: quantity for resource, quantity in asked.items() if quantity}
    is_rank = not other or job.num_workers > 1
    body = pod(name, job.image, ["python", "-c", SCRIPT], service_account, given if is_rank else None)
    body["metadata"]["labels"] = {
        **LABELS,
        "app.kubernetes.io/component": "train",
    }  # for it the policies hold that hold for ranks
    body["spec"]["containers"][0]["env"] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "OTHER", "value": other},
        {"name": "PORT", "value": str(PORT)},
        {"name": "WAIT_SECONDS", "value": str(SECONDS)},
    ]
    body["spec"]["activeDeadlineSeconds"] = int(SECONDS) + 60  # should this process be killed
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": body["metadata"]["labels"]}}
    preferred = [{"weight": 100, "podAffinityTerm": apart}]  # the network between nodes is what is in doubt
    body["spec"]["affinity"] = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    return body


def _state(there: Object) -> str:
    """ended, failed and why, or what it waits for."""
    status = there.get("status", {})
    if status.get("phase") == "Succeeded":
        return "ended"
    containers = status.get("containerStatuses") or [{}]
    state = containers[0].get("state", {})
    if status.get("phase") == "Failed":
        ended = state.get("terminated", {})
        said = ended.get("message") or status.get("message") or f"exit code {ended.get('exitCode')}"
        return f"failed: {' '.join(said.split())}"
    if waiting := state.get("waiting"):
        said = f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip()
        return f"failed: {said}" if waiting.get("reason") in HOPELESS else f"waits: {said}"
    return f"waits: {unmet}" if (unmet := _no_place(there)) else "runs"


def _no_place(there: Object) -> str:
    """The scheduler's reason, where no node takes the pod."""
    conditions = there.get("status", {}).get("conditions", [])
    unmet = [each for each in conditions if each["type"] == "PodScheduled" and each["status"] == "False"]
    return str(unmet[0].get("message") or "not scheduled") if unmet else ""


def _mend(state: str) -> str:
    if "Image" in state:
        return "push the image, or name it with --train-image; a private registry needs imagePullSecrets in the service account"
    if "connect" in state:
        return f"let pods of the namespace reach each other on every port (NetworkPolicy, service mesh), {PORT} first"
    return "see kubectl describe pod, while it lasts, and run this again"


@contextmanager
def _deleted(api: Api, names: list[str]) -> Iterator[list[str]]:
    """Delete the pods at the end, created or not; yields a list that then holds those that could not be."""
    left: list[str] = []
    try:
        yield left
    finally:
        for name in names:
            try:
                ask(api, "DELETE", f"{PODS}/{name}", query={"gracePeriodSeconds": 0})
            except ApiError as error:
                if error.status != 404:
                    left.append(name)
            except AwayError:
                left.append(name)
