"""Why Kueue keeps a job waiting. Of itself a suspended job says nothing: its Workload does."""

import re
from dataclasses import dataclass, field

from components.launch.api import Api, ApiError, AwayError, Object
from components.launch.job import QUEUE_LABEL
from components.launch.state import State

JOB_LABEL = "kueue.x-k8s.io/job-uid"
VERSIONS = ("v1beta2", "v1beta1")
SECONDS = 10.0
"""Between two looks."""
QUOTA = re.compile(r"insufficient (unused )?quota for \S+ in flavor ([^\s,]+)")
NO_QUEUE = re.compile(r"LocalQueue \S* ?doesn't exist")


@dataclass
class Admission:
    """Looks at the Workload of a job while that is suspended, and tells the state what it waits for.

    Where one may not look, or there is no Kueue, nothing is told.
    """

    api: Api
    state: State
    versions: list[str] = field(default_factory=lambda: list(VERSIONS))
    due: float = 0.0

    def __post_init__(self) -> None:
        metadata = (self.state.job or {}).get("metadata", {})
        self.uid, self.is_queued = metadata.get("uid", ""), QUEUE_LABEL in metadata.get("labels", {})

    def heed(self, now: float) -> None:
        if not (self.is_queued and self.state.is_suspended):
            self.state.waits_for = ""
        elif now >= self.due:
            self.due = now + SECONDS
            self.state.waits_for = self._message() or self.state.waits_for

    def _message(self) -> str:
        """Of the condition that it has no quota yet; '' where there is none to be seen."""
        for version in list(self.versions):
            path = f"/apis/kueue.x-k8s.io/{version}/namespaces/{{namespace}}/workloads"
            try:
                found = self.api.ask("GET", path, query={"labelSelector": f"{JOB_LABEL}={self.uid}"})["items"]
            except ApiError:
                self.versions.remove(version)  # this one is not served, or not for us
                continue
            except AwayError:
                return ""
            conditions: list[Object] = [it for each in found for it in each.get("status", {}).get("conditions") or []]
            return next(
                (it.get("message", "") for it in conditions if it["type"] == "QuotaReserved" and it["status"] == "False"), ""
            )
        return ""


def never_admitted(message: str) -> bool:
    """Whether a job of which Kueue says this can wait for ever: no flavor of its queue has as much, or there is no such queue.

    Of each flavor it says either that the quota is too small, or that it is in use.
    """
    too_small: dict[str, bool] = {}
    for unused, flavor in QUOTA.findall(message):
        too_small[flavor] = too_small.get(flavor, False) or not unused
    return (bool(too_small) and all(too_small.values())) or bool(NO_QUEUE.search(message))
