"""Two pods with the training image, each of which connects to the other: as ranks will, but in seconds and without a GPU."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from components.doctor.finding import Finding, ask
from components.doctor.pods import LABELS, pod
from components.launch.access import allowed, phrase
from components.launch.api import PODS, Api, ApiError, AwayError, Object

SECONDS = 600.0  # a training image has gigabytes
POLL_SECONDS = 1.0
NEEDED = tuple((verb, "", "pods", "") for verb in ("create", "get", "delete"))
PORT = 29500  # torchrun's own
HOPELESS = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError")

# The first pod waits for the second, then connects back to where that came from: ranks need both ways.
SCRIPT = """
import os, socket, time
me, other, port, until = os.environ["POD_IP"], os.environ["OTHER"], int(os.environ["PORT"]), time.time() + 60

def wait():
    server.settimeout(max(1, until - time.time()))
    return server.accept()[1][0]

def connect(to):
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
        wait()
    else:
        connect(wait())
except TimeoutError:
    raise SystemExit(f"nobody connected to {me}:{port}")
"""


def meet(api: Api, image: str, service_account: str) -> Finding:
    """Start the pods, wait for both, and delete them whatever happens."""
    if lacking := [phrase(right) for right in NEEDED if not allowed(api, right)]:
        return Finding("skipped", f"needs the right to {', '.join(lacking)}")
    started = time.monotonic()
    name = f"adapt-doctor-{uuid.uuid4().hex[:8]}"
    with _deleted(api, [f"{name}-0", f"{name}-1"]) as left:
        finding = _meet(api, name, image, service_account, started)
    if left:
        return Finding("failed", f"{finding.found}; not deleted: {', '.join(left)}", f"kubectl delete pod {' '.join(left)}")
    return finding


def _meet(api: Api, name: str, image: str, service_account: str, started: float) -> Finding:
    ask(api, "POST", PODS, _pod(f"{name}-0", image, service_account, ""))
    address = ""
    states: dict[str, str] = {}
    while time.monotonic() - started < SECONDS:
        names = [f"{name}-0", *([f"{name}-1"] if address else [])]
        for each in names:
            there = ask(api, "GET", f"{PODS}/{each}")
            states[each] = _state(there)
            if not address and (address := there.get("status", {}).get("podIP", "")):
                ask(api, "POST", PODS, _pod(f"{name}-1", image, service_account, address))
            if states[each].startswith("failed"):
                return Finding("failed", f"{each}: {states[each]}", _mend(states[each]))
        if len(names) == 2 and set(states.values()) == {"ended"}:
            seconds = time.monotonic() - started
            return Finding("ok", f"the image was pulled, and each pod reached the other on port {PORT} ({seconds:.0f} s)")
        time.sleep(POLL_SECONDS)
    said = ", ".join(f"{each} {state}" for each, state in states.items() if state != "ended")
    return Finding("failed", f"not done after {SECONDS:.0f} s: {said}", "make room for the pods, or ask who runs the cluster")


def _pod(name: str, image: str, service_account: str, other: str) -> Object:
    body = pod(name, image, ["python", "-c", SCRIPT], service_account)
    body["metadata"]["labels"] = {
        **LABELS,
        "app.kubernetes.io/component": "train",
    }  # for it the policies hold that hold for ranks
    body["spec"]["containers"][0]["env"] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "OTHER", "value": other},
        {"name": "PORT", "value": str(PORT)},
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
    unmet = [each for each in status.get("conditions", []) if each["type"] == "PodScheduled" and each["status"] == "False"]
    return f"waits: {unmet[0].get('message', 'not scheduled')}" if unmet else "runs"


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
