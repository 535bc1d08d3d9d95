"""Follow a run on Kubeflow: a line for each stage's change, and at the end its exit code.

Kubeflow 2.17 says that a task failed, and not why: the reason and the stage's exit code are looked for in what the API says of
the task, and else in the log of the run's failed pods, where one may read it.
"""

import re
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from components.errors import FailedError, StageError, TryAgainError, UserError
from pipelines.kubeflow import Kubeflow
from pipelines.pods import Pods

POLL_SECONDS = 5.0
AWAY_SECONDS = 1800.0
SILENT_SECONDS = 90.0
"""After which Kubeflow is late to say what its pods show: its view of a run above 1 MiB stands still until the run ends."""
SILENT = (
    "Kubeflow shows no progress of this run any more (its Workflow may have outgrown 1 MiB): its pods, as they come and go:"
)
TOO_LARGE = "longer than maximum allowed size"
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
NOT_RUN = "not run"
CODE = re.compile(r"exit (?:status|code):? (\d+)")
ERROR = re.compile(r"^error: (.+)$", re.MULTILINE)
BY_CODE: dict[int, type[StageError]] = {2: UserError, 75: TryAgainError}


@dataclass(frozen=True)
class Stage:
    """A task of the run, as far as the API tells of it."""

    task_id: str
    name: str
    state: str
    seconds: float | None
    messages: str

    @property
    def took(self) -> str:
        return "" if self.seconds is None or self.state in ("pending", "skipped", NOT_RUN) else duration(self.seconds)

    def __str__(self) -> str:
        return f"{self.name:12} {self.state:10} {self.took}".rstrip()


def follow(kubeflow: Kubeflow, run_id: str, spec: dict[str, Any]) -> None:
    """Until the run has ended.

    Raises:
        StageError: as the first stage that failed.  TryAgainError: also where Kubeflow is away; the run goes on.
        KeyboardInterrupt: the run goes on.
    """
    try:
        run = _watched(kubeflow, run_id, stage_names(spec))
    except KeyboardInterrupt:
        print(
            f"\nthe run goes on. To end it: Terminate on its page, {kubeflow.page(run_id)},\n"
            f"or curl -X POST {kubeflow.endpoint}/apis/v2beta1/runs/{run_id}:terminate, with your token",
            file=sys.stderr,
        )
        raise
    if error := error_of(kubeflow, {**run, "run_id": run_id}, spec):
        raise error


def error_of(kubeflow: Kubeflow, run: dict[str, Any], spec: dict[str, Any]) -> StageError | None:
    """What a run that has ended ended with: the error of the first stage that failed. None where it has succeeded."""
    run_id = run["run_id"]
    if run["state"] == "SUCCEEDED":
        return None
    if was_terminated(run):
        return FailedError(f"the run was terminated: see {kubeflow.page(run_id)}")
    failed = [each for each in stages_of(run, stage_names(spec)) if each.state == "failed"]
    who = failed[0].name if failed else "the run"
    said = [each.messages for each in failed] + [(run.get("error") or {}).get("message", "")]
    if any(TOO_LARGE in each for each in said):
        mend = (
            "its Workflow has outgrown what Kubernetes keeps, and its pods may run on: terminate it, and send less in one run"
        )
        return UserError(f"{mend} (a larger suite as runs of their own): see {kubeflow.page(run_id)}")
    code, why = reason(said)
    if code is None or not why:
        in_logs = reason(Pods(kubeflow.pods_in, run_id).logs())
        code, why = code or in_logs[0], why or in_logs[1]
    return BY_CODE.get(code or 1, FailedError)(f"{who}: {why or 'failed'}: see {kubeflow.page(run_id)}")


def run_of(kubeflow: Kubeflow, run_id: str) -> dict[str, Any]:
    """The run as it stands. A server that is away is waited for.

    Raises:
        TryAgainError: it is for too long; the run goes on.
    """
    since = time.monotonic()
    while True:
        try:
            return kubeflow.get(f"/apis/v2beta1/runs/{run_id}", view="FULL")
        except TryAgainError as error:
            if time.monotonic() - since > AWAY_SECONDS:
                raise TryAgainError(f"{error}; the run goes on: {kubeflow.page(run_id)}") from None
            time.sleep(POLL_SECONDS)


def _watched(kubeflow: Kubeflow, run_id: str, names: set[str]) -> dict[str, Any]:
    """The run at its end; every change of a stage is printed."""
    shown: dict[str, str] = {}
    pods, silence = Pods(kubeflow.pods_in, run_id), Silence()
    on_terminal = sys.stdout.isatty()
    while True:
        run = run_of(kubeflow, run_id)
        stages = stages_of(run, names)
        has_ended = run.get("state") in ENDED
        if has_ended:  # what has not begun never will
            stages = [replace(each, state=NOT_RUN) if each.state == "pending" else each for each in stages]
        if on_terminal:
            print("\r\033[K", end="")
        for stage in stages:
            if shown.get(stage.task_id) != stage.state:
                shown[stage.task_id] = stage.state
                print(stage, flush=True)
        if has_ended:
            return run
        waits, changes = pods.look()
        for line in (*waits, *silence.heed(run, changes, time.monotonic())):
            print(line, flush=True)
        if on_terminal:  # how long each has run already
            running = ", ".join(f"{each.name} {each.state}  {each.took}" for each in stages if each.state == "running")
            print(running[: shutil.get_terminal_size().columns - 1], end="", flush=True)
        time.sleep(POLL_SECONDS)


@dataclass
class Silence:
    """Whether pods come and go of which Kubeflow tells nothing."""

    told: Any = None
    since: float | None = None
    is_silent: bool = False

    def heed(self, run: dict[str, Any], changes: list[str], now: float) -> list[str]:
        """What is to be said: nothing while Kubeflow itself tells of the run, else what is new of its pods."""
        tells = [(task.get("task_id"), task.get("state") or task.get("status")) for task in _tasks(run)]
        if tells != self.told:
            self.told, self.since, self.is_silent = tells, None, False
        elif changes and self.since is None:
            self.since = now
        if self.is_silent:
            return changes
        self.is_silent = self.since is not None and now - self.since > SILENT_SECONDS
        return [SILENT, *changes] if self.is_silent else []


def _tasks(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Kubeflow 2.17 calls them task_details, later ones tasks; those have no drivers."""
    return list((run.get("run_details") or {}).get("task_details") or run.get("tasks") or [])


def stage_names(spec: dict[str, Any]) -> set[str]:
    """Of the tasks that are stages: those that run something, not loops, conditions or pipelines."""
    components = spec["components"]
    dags = [spec["root"]["dag"], *(each["dag"] for each in components.values() if "dag" in each)]
    tasks = [(name, task) for dag in dags for name, task in dag["tasks"].items()]
    runs = [(name, task) for name, task in tasks if "executorLabel" in components[task["componentRef"]["name"]]]
    return {name for name, _ in runs} | {task["taskInfo"]["name"] for _, task in runs}


def stages_of(run: dict[str, Any], names: set[str]) -> list[Stage]:
    """In the order in which they were made."""
    stages: list[Stage] = []
    count: dict[str, int] = {}
    for task in sorted(_tasks(run), key=lambda task: task.get("create_time") or ""):
        name = task.get("display_name") or task.get("name") or ""
        if name not in names:
            continue
        count[name] = count.get(name, 0) + 1
        state = (task.get("state") or task.get("status") or "PENDING").removeprefix("RUNTIME_STATE_").lower()
        number = f" {count[name]}" if count[name] > 1 else ""  # of a loop
        stages.append(Stage(task["task_id"], f"{name}{number}", state, _seconds(task), _messages(task)))
    return stages


def _messages(task: dict[str, Any]) -> str:
    """All that the API says of a failure, wherever it says it."""
    history = [(each.get("error") or {}).get("message") for each in task.get("state_history") or []]
    said = [(task.get("error") or {}).get("message"), (task.get("status_metadata") or {}).get("message"), *history]
    return "\n".join(filter(None, said))


def _seconds(task: dict[str, Any]) -> float | None:
    """From its start to its end, or till now."""
    began, ended = (_time(task.get(name)) for name in ("start_time", "end_time"))
    if began is None:
        return None
    until = ended.timestamp() if ended is not None and ended >= began else time.time()
    return max(0.0, until - began.timestamp())


def run_took(run: dict[str, Any]) -> str:
    """From when it was sent to its end."""
    began, ended = (_time(run.get(name)) for name in ("created_at", "finished_at"))
    return duration((ended - began).total_seconds()) if began and ended else ""


def _time(text: str | None) -> datetime | None:
    """None also for the year 1, which stands for not yet."""
    if not text or text < "1971":
        return None
    return datetime.fromisoformat(text)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def reason(texts: Iterable[str]) -> tuple[int | None, str]:
    """The exit code and the one line of the first that has them. A code 1 is every pod's, and says nothing."""
    code, why = None, ""
    for text in texts:
        codes = [int(each) for each in CODE.findall(text) if each != "1"]
        lines = ERROR.findall(text)
        code = code or (codes[-1] if codes else None)
        why = why or (lines[-1] if lines else "")
    return code, why


def was_terminated(run: dict[str, Any]) -> bool:
    """Kubeflow lets such a run end as failed as often as not."""
    states = [run.get("state"), *(each.get("state") for each in run.get("state_history") or [])]
    return "CANCELED" in states or "CANCELING" in states
