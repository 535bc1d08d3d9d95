"""The logs of all ranks: prefixed in this process's own output as they come, and whole in a file for each life of a rank."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from components.errors import TryAgainError
from components.launch.api import PODS, Api, ApiError, AwayError
from components.launch.state import Run, State

STAMP = re.compile(rb"^(\S+?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d) ")


def file_name(run: Run) -> str:
    return f"{run.replica}.{run.number}.log"


@dataclass
class Logs:
    """Follows every life of every rank that `state` tells of. `folder` gets REPLICA.NUMBER.log, with the cluster's stamps,
    and job.log.
    """

    api: Api
    state: State
    folder: Path
    stopped: threading.Event
    threads: dict[tuple[str, int], threading.Thread] = field(default_factory=dict)
    printing: threading.Lock = field(default_factory=threading.Lock)
    refused: set[str] = field(default_factory=set)
    stands: str = ""

    def follow_new(self) -> None:
        for key, run in self.state.runs.items():
            if key not in self.threads:
                thread = self.threads[key] = threading.Thread(target=self._follow, args=(run,), daemon=True)
                thread.start()

    def wait(self, seconds: float) -> None:
        """Until all that ends has ended, `seconds` at most."""
        until = time.monotonic() + seconds
        for thread in self.threads.values():
            thread.join(max(0.0, until - time.monotonic()))

    def _follow(self, run: Run) -> None:
        with (self.folder / file_name(run)).open("wb") as file:
            try:
                _Follower(self, run, file.write).run()
            except TryAgainError as error:
                self.tell(run, f"(log lost: {error})")

    def tell(self, run: Run, line: str) -> None:
        prefix = run.replica if run.number == 1 else f"{run.replica}.{run.number}"
        with self.printing:
            print(f"[{prefix}] {line}", flush=True)

    def say(self, line: str) -> None:
        """Of the job as a whole: here, and in job.log beside the ranks' files."""
        with self.printing, (self.folder / "job.log").open("a") as file:
            print(f"job: {line}", flush=True)
            print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}", file=file)

    def say_once(self, line: str) -> None:
        """How the job stands: said when it is another than before."""
        if line and line != self.stands:
            self.say(line)
            self.stands = line

    def warn_once(self, message: str) -> None:
        if message not in self.refused:
            self.refused.add(message)
            self.say(f"warning: {message}")

    def last_line(self, run: Run) -> str:
        """What a rank said last; '' where nothing is known."""
        path = self.folder / file_name(run)
        lines = path.read_bytes().splitlines() if path.is_file() else []
        return STAMP.sub(b"", lines[-1]).decode(errors="replace").strip() if lines else ""


class _Follower:
    """One life's log, opened again where its stream is cut, from the last line that came.

    A stream's end does not say that the container has ended: a node that is lost ends it too.
    """

    def __init__(self, logs: Logs, run: Run, write: Callable[[bytes], object]) -> None:
        self.logs, self.life = logs, run
        self.write = write
        self.since = b""  # as the server wrote it
        self.last = b""  # the same, comparable
        self.at_last = 0  # lines that bear this very stamp

    def run(self) -> None:
        pauses, started = self.logs.api.patience.pauses(), time.monotonic()
        while not self.logs.stopped.is_set():
            over = self.has_ended()
            try:
                self.read(follow=not over)
                pauses, started = self.logs.api.patience.pauses(), time.monotonic()
            except AwayError as error:
                self.logs.api.heed(error, started, next(pauses))
                continue
            except ApiError as error:
                if error.status == 403:
                    self.logs.warn_once(f"no right to read the ranks' logs (get pods/log): {error.message}")
                    return
                if error.status == 404 or over:  # the pod is gone, or its log
                    return
            if over:
                return
            self._await_end()

    def has_ended(self) -> bool:
        return self.life.exit_code is not None or not self.logs.state.pods[self.life.uid]["present"]

    def _await_end(self) -> None:
        """The pod's status says a moment later than the stream that the container has ended."""
        until = time.monotonic() + 4 * self.logs.api.patience.pause
        while time.monotonic() < until and not self.has_ended() and not self.logs.stopped.is_set():
            time.sleep(self.logs.api.patience.pause / 4)

    def read(self, follow: bool) -> None:
        pod = self.logs.state.pods[self.life.uid]
        query: dict[str, object] = {"container": pod["spec"]["containers"][0]["name"], "timestamps": "true"}
        statuses = pod.get("status", {}).get("containerStatuses", [])
        if statuses and statuses[0].get("restartCount", 0) > self.life.restart:
            query["previous"] = "true"
        elif follow:
            query["follow"] = "true"
        if self.since:
            query["sinceTime"] = self.since.decode()
        known = self.at_last
        for line in self.logs.api.lines(f"{PODS}/{self.life.pod}/log", query):
            match = STAMP.match(line)
            if not match:  # the server's own words
                continue
            stamp = match[1] + b"." + (match[2] or b"").ljust(9, b"0")
            if stamp < self.last or (stamp == self.last and known > 0):  # sinceTime is a whole second
                known -= stamp == self.last
                continue
            self.at_last = self.at_last + 1 if stamp == self.last else 1
            self.since, self.last = match[0].strip(), stamp
            self.write(line + b"\n")
            self.logs.tell(self.life, line[match.end() :].decode(errors="replace"))
