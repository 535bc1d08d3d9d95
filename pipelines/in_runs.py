"""A suite that is too large for one run of Kubeflow: a run of adapt for each task with each seed, some at a time, then a run
that makes their table.

Who sends the same suite again, with the same code and images, goes on with it: what has succeeded is left out, and what still
goes on is waited for.
"""

import hashlib
import json
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from components.errors import StageError
from components.resolve.stage import OF_RUNS, every_run
from components.suite.stage import FITS, run_name
from pipelines import follow
from pipelines.kubeflow import Kubeflow
from pipelines.request import Request

OF_TABLE = ("experiment", "tracking_uri")


def is_needed(arguments: Mapping[str, Any]) -> bool:
    """Whether a suite of these parameters is larger than one run may be."""
    return len(every_run(arguments)) > FITS


@dataclass(frozen=True)
class Suite:
    """runs: title -> request, in the order in which they are sent. table: to be told the runs' ids."""

    runs: dict[str, Request]
    table: Request


def split(suite: Request, adapt: Request, table: Request) -> Suite:
    """The requests of a suite.

    All tasks with the first seed come first: their data are in Kubeflow's cache when the other seeds come.

    Args:
        suite: As it would be sent in one. Its run_name begins the names of the others, if it is not empty.
        adapt, table: The compiled pipelines.
    """
    common = {name: value for name, value in suite.parameters.items() if name not in OF_RUNS}
    content = [adapt.file.read_bytes(), table.file.read_bytes(), json.dumps([common, suite.service_account]).encode()]
    key = hashlib.sha256(b"".join(content)).hexdigest()[:10]
    prefix = f"{suite.run_name or 'suite'}-{key}"

    def named(request: Request, name: str, given: dict[str, Any]) -> Request:
        return replace(request, run_name=f"{prefix}-{name}", parameters=given)

    every = every_run(suite.parameters)
    seeds = [run["seed"] for run in every]
    requests = {
        run_name(run["task"], run["seed"]): named(adapt, f"{run['task']}-seed-{run['seed']}", run)
        for run in sorted(every, key=lambda run: seeds.index(run["seed"]))
    }
    settings = {**common.get("overrides", {}), **common}
    of_table = {name: settings[name] for name in OF_TABLE if name in settings}
    everything = hashlib.sha256(json.dumps(list(requests)).encode()).hexdigest()[:10]  # a table of other runs is another
    return Suite(requests, named(table, f"table-{everything}", {**of_table, "pipeline_run_ids": []}))


def submit(kubeflow: Kubeflow, suite: Suite, max_parallel: int) -> None:
    """Send what is not there yet, wait for all, and make the table.

    Raises:
        StageError: as the first run that failed, when all have ended; or as the table's.  TryAgainError: Kubeflow is away.
        KeyboardInterrupt: the runs that were sent go on.
    """
    experiment_id = kubeflow.experiment(suite.table.experiment)
    there = kubeflow.runs(experiment_id, suite.table.run_name.rpartition("-table-")[0])
    progress = _Progress(kubeflow, experiment_id, {run["display_name"]: run for run in reversed(there)})  # the newest counts
    try:
        ids = progress.run_all(suite.runs, max_parallel)
        table = replace(suite.table, parameters={**suite.table.parameters, "pipeline_run_ids": ids})
        run_id, _ = progress.begun(table, "table")
    except KeyboardInterrupt:
        going = "".join(f"\n  {title}: {kubeflow.page(run_id)}" for title, run_id in progress.going.items())
        print(f"\nwhat was sent goes on; the same command goes on from here{going}", file=sys.stderr)
        raise
    follow.follow(kubeflow, run_id, table.spec)


WIDTH = 18
"""Of the longest name of a run."""


@dataclass
class _Progress:
    """there: by name, the runs that Kubeflow has already. going: by title, the ids of those that are waited for."""

    kubeflow: Kubeflow
    experiment_id: str
    there: Mapping[str, dict[str, Any]]
    going: dict[str, str] = field(default_factory=dict)

    def begun(self, request: Request, title: str) -> tuple[str, bool]:
        """The id of the run that is there and has not failed, else of a new one; and whether it has succeeded already."""
        found = self.there.get(request.run_name, {"state": "FAILED"})
        if found.get("state") == "SUCCEEDED":
            print(f"{title:{WIDTH}} already there  {self.kubeflow.page(found['run_id'])}", flush=True)
            return str(found["run_id"]), True
        if found.get("state") not in follow.ENDED and not follow.was_terminated(found):
            print(f"{title:{WIDTH}} goes on        {self.kubeflow.page(found['run_id'])}", flush=True)
            return str(found["run_id"]), False
        run_id = self.kubeflow.submit(request, self.experiment_id)
        print(f"{title:{WIDTH}} sent           {self.kubeflow.page(run_id)}", flush=True)
        return run_id, False

    def run_all(self, requests: Mapping[str, Request], max_parallel: int) -> list[str]:
        """The ids of all runs, when all have succeeded."""
        ids: dict[str, str] = {}
        errors: dict[str, StageError] = {}
        waiting = deque(requests)
        while waiting or self.going:
            while waiting and len(self.going) < max_parallel:
                title = waiting.popleft()
                ids[title], is_done = self.begun(requests[title], title)
                if not is_done:
                    self.going[title] = ids[title]
            for title, run_id in list(self.going.items()):
                run = follow.run_of(self.kubeflow, run_id)
                if run.get("state") not in follow.ENDED:
                    continue
                del self.going[title]
                if error := follow.error_of(self.kubeflow, run, requests[title].spec):
                    errors[title] = error
                done = len(ids) - len(self.going)
                said = f"{'failed' if error else 'succeeded':14} {follow.run_took(run)}{f', {error}' if error else ''}"
                print(f"{title:{WIDTH}} {said} ({done} of {len(requests)})", flush=True)
            if self.going:
                time.sleep(follow.POLL_SECONDS)
        if errors:
            title, error = next(iter(errors.items()))
            some = f"{len(errors)} of {len(requests)} runs failed, {title} for one"
            raise type(error)(f"{some}: {error}; the same command sends those again")
        return [ids[title] for title in requests]
