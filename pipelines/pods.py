"""The pods of a run on Kubeflow, where one may read them: what its API does not say."""

import contextlib
from collections.abc import Iterator
from typing import Any

from components.errors import UserError
from components.launch import api as kubernetes
from components.launch.api import PODS, ApiError, AwayError
from components.launch.wording import HOPELESS

NODE = "workflows.argoproj.io/node-name"


def stage_of(pod: dict[str, Any]) -> str:
    """Where in the run it is, as Argo names it without the run's own name: root.train.executor."""
    metadata = pod["metadata"]
    return str(metadata.get("annotations", {}).get(NODE, "").partition(".")[2] or metadata["name"])


class Pods:
    """The pods of a run, for what Kubeflow does not say of them; nothing where one may not read them."""

    def __init__(self, namespace: str, run_id: str) -> None:
        self.query = {"labelSelector": f"pipeline/runid={run_id}"}
        self.told: set[tuple[str, str]] = set()
        self.phases: dict[str, str] = {}
        self.cluster: kubernetes.Api | None = None
        with contextlib.suppress(UserError):
            self.cluster = kubernetes.connect(namespace, kubernetes.Patience(answer=10.0))

    def listed(self, **query: str) -> list[dict[str, Any]]:
        """Newest first."""
        try:
            pods = self.cluster.ask("GET", PODS, query={**self.query, **query})["items"] if self.cluster else []
        except (ApiError, AwayError):
            return []
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), reverse=True)

    def look(self) -> tuple[list[str], list[str]]:
        """What is new since the last look: of those that cannot start, which Kubeflow calls running, once of each; and of all,
        as they come, start and end.
        """
        waits, changes = [], []
        for pod in reversed(self.listed()):
            status, name = pod.get("status", {}), pod["metadata"]["name"]
            phase = status.get("phase", "Pending")
            if self.phases.get(name) != phase:
                self.phases[name] = phase
                changes.append(f"{stage_of(pod)} {phase.lower()}")
            containers = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
            for container in containers if phase == "Pending" else ():
                waiting = container.get("state", {}).get("waiting", {})
                if waiting.get("reason") in HOPELESS and (name, "waits") not in self.told:
                    self.told.add((name, "waits"))
                    waits.append(f"{name} cannot start: {waiting['reason']}: {waiting.get('message', '')}")
        return waits, changes

    def logs(self) -> Iterator[str]:
        """The last lines of those that failed: the last of several tries comes first."""
        for pod in self.listed(fieldSelector="status.phase=Failed"):
            query = {"container": "main", "tailLines": 100}
            with contextlib.suppress(ApiError, AwayError):
                assert self.cluster
                lines = self.cluster.lines(f"{PODS}/{pod['metadata']['name']}/log", query)
                yield b"\n".join(lines).decode(errors="replace")
