"""The lines of a growing metrics file, in a run of MLflow as they come."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from components.artifacts.names import TRAINING_CLOCK
from components.tracking.away import in_haste

METRICS_AT_ONCE = 1000  # what the server takes in one request
POLL_SECONDS = 2.0
LAST_SECONDS = 5.0  # that a request may still take when the stage has failed


@contextmanager
def following(run_id: str, output_dir: Path, file: str) -> Iterator[None]:
    """Log the lines of a growing file in `output_dir` (or in the folder that is to become it) as they come."""
    follower = _Follower(run_id, output_dir, file)
    follower.start()
    try:
        yield
    except BaseException:
        with in_haste(f"the last lines of {file}"):
            follower.finish(LAST_SECONDS)
        raise
    follower.finish()


class _Follower(threading.Thread):
    def __init__(self, run_id: str, output_dir: Path, file: str) -> None:
        super().__init__(daemon=True)
        self.client = mlflow.MlflowClient()
        self.run_id = run_id
        self.output_dir = output_dir
        self.file = file
        self.num_logged = 0
        self.last_update = self._last_update()
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(POLL_SECONDS):
            try:
                self.log_new_lines()
            except MlflowException:
                continue  # the server is away for now: the next round has these lines too

    def finish(self, seconds: float | None = None) -> None:
        """Log the rest.

        Raises:
            TimeoutError: a request that had begun took longer than `seconds`.
        """
        self.stopped.set()
        self.join(seconds)
        if self.is_alive():
            raise TimeoutError("it does not answer")
        self.log_new_lines()

    def log_new_lines(self) -> None:
        """Log the whole lines that are not logged yet."""
        unfinished = self.output_dir.parent.glob(f".{self.output_dir.name}.*.partial/{self.file}")
        paths = [path for path in (self.output_dir / self.file, *unfinished) if path.is_file()]
        if not paths:
            return
        newest = max(paths, key=lambda path: path.stat().st_mtime_ns)  # a killed run leaves one behind
        lines = newest.read_text().splitlines(keepends=True)[self.num_logged :]
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        seconds = _seconds(newest.with_name(TRAINING_CLOCK))
        new = [{**seconds.get(line["update"], {}), **line} for line in whole if line["update"] > self.last_update]
        metrics = [metric for line in new for metric in self._metrics(line)]
        for start in range(0, len(metrics), METRICS_AT_ONCE):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + METRICS_AT_ONCE])
        self.num_logged += len(whole)

    def _last_update(self) -> int:
        """That an earlier attempt logged on the same run: from a checkpoint on, its lines come once more."""
        logged = "loss" in self.client.get_run(self.run_id).data.metrics
        return max(point.step for point in self.client.get_metric_history(self.run_id, "loss")) if logged else 0

    def _metrics(self, line: dict[str, Any]) -> list[Metric]:
        now = int(time.time() * 1000)
        return [Metric(name, value, now, line["update"]) for name, value in line.items() if name != "update"]


def _seconds(clock: Path) -> dict[int, dict[str, float]]:
    """Update -> {"seconds": ...}, which a finished file's lines no longer have."""
    lines = map(json.loads, clock.read_text().splitlines() if clock.is_file() else ())
    return {line["update"]: {"seconds": line["seconds"]} for line in lines}
