"""Processes that come to one MLflow server at the same moment, and steps that end in every way after it has gone."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from servers import mlflow_server
from support import ROOT, heed_interrupts

from components.tracking.tree import PIPELINE_RUN_TAG

STAGE = """
import os, sys
from components.artifacts.provenance import Iteration, Tracking
from components.tracking.runs import stage_run

print("ready", flush=True)
for line in sys.stdin:
    name, iteration, os.environ["PIPELINE_RUN_ID"] = line.split()
    with stage_run(name, Tracking("adapt", ""), iteration=Iteration(iteration, {"of": iteration})):
        print("begun", flush=True)
        sys.stdin.readline()
    print("ended", flush=True)
"""
"""For every line that it reads a stage, which ends with the next line."""

STEP = """
import os, signal, sys, types
from pathlib import Path
from components.artifacts.folders import Artifact
from components.artifacts.provenance import Tracking
from components.errors import UserError
from components.tracking.steps import begun, recorded

folder, how = Path(sys.argv[1]), sys.argv[2]
output = types.SimpleNamespace(path=str(folder / "trained"), metadata={})
artifact = Artifact(folder / "trained", "train", {}, {"data": "0"})

def make(run, _):
    with run.following(artifact.path, "metrics.jsonl"):
        print("begun", flush=True)
        sys.stdin.readline()
        with artifact.building() as made:
            (made / "metrics.jsonl").write_text('{"update": 1, "loss": 0.5}\\\\n')
            if how == "a user's mistake":
                raise UserError("update 3: loss is nan: lower learning_rate")
            if how == "a bug":
                raise ZeroDivisionError("division by zero")
            if how == "interrupted":
                raise KeyboardInterrupt
            if how == "told to end":
                os.kill(os.getpid(), signal.SIGTERM)
    return artifact.manifest()

with begun(output.path):
    recorded(artifact, Tracking("adapt", ""), output, make)
"""
WAYS = {
    "a user's mistake": (2, "update 3: loss is nan: lower learning_rate", "error: update 3: loss is nan"),
    "a bug": (1, "ZeroDivisionError: division by zero", "ZeroDivisionError: division by zero"),
    "interrupted": (130, "interrupted", "interrupted"),
    "told to end": (143, "stopped with 143", ""),
    "well": (75, "does not answer", "does not answer"),
}
"""How a step ends -> its exit code, what its record says, what it prints."""


def started(code: str, *arguments: object, **environment: str) -> Any:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = {**os.environ, **environment}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, preexec_fn=heed_interrupts, **pipes)


def tell(process: Any, line: str) -> None:
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def hear(process: Any, awaited: str) -> None:
    for line in process.stdout:
        if line.strip() == awaited:
            return
    raise AssertionError(f"it ended before it was {awaited}: {process.stderr.read()}")


def tree_at(uri: str, pipeline_run_id: str) -> list[str]:
    """The runs of a pipeline run, each with the names of those above it."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("adapt")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`{PIPELINE_RUN_TAG}` = '{pipeline_run_id}'")
    runs = {run.info.run_id: run for run in found}

    def path(run: mlflow.entities.Run) -> str:
        above = run.data.tags.get("mlflow.parentRunId")
        return f"{path(runs[above])}/{run.info.run_name}" if above else str(run.info.run_name)

    return sorted(map(path, found))


def begin_at_once(uri: str, count: int, repetitions: int) -> tuple[list[list[str]], list[list[str]]]:
    """The trees of stages that begin in many processes at the same moment, half of them in one iteration; and those wanted."""
    found, wanted = [], []
    processes = [started(STAGE, MLFLOW_TRACKING_URI=uri) for _ in range(count)]
    for process in processes:
        hear(process, "ready")
    for own in (f"together-{count}-{repetition}" for repetition in range(repetitions)):
        stages = [(f"train-{number}", "same" if number % 2 else f"own-{number}") for number in range(count)]
        for process, stage in zip(processes, stages, strict=True):
            tell(process, f"{' '.join(stage)} {own}")
        for heard in ("begun", "ended"):
            for process in processes:
                hear(process, heard)
                if heard == "begun":
                    tell(process, "")
        found.append(tree_at(uri, own))
        paths = [f"{own}/{iteration}/{name}" for name, iteration in stages]
        wanted.append(sorted({own, *(path.rpartition("/")[0] for path in paths), *paths}))
    for process in processes:
        process.communicate()
    return found, wanted


def steps_left_alone(folder: Path, uri: str, ways: Iterable[str]) -> dict[str, Any]:
    """How -> a step that has begun, and goes on when it is told."""
    steps = {}
    for how in ways:
        (folder / how).mkdir()
        short = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"} if how == "well" else {}  # else it waits as long as MLflow does
        steps[how] = started(STEP, folder / how, how, PIPELINE_RUN_ID="away", MLFLOW_TRACKING_URI=uri, **short)
    for step in steps.values():
        hear(step, "begun")
    return steps


def check_ends(folder: Path, steps: Mapping[str, Any]) -> None:
    """Let them end, now that the server has gone."""
    begun = time.monotonic()
    for step in steps.values():
        tell(step, "")
    for how, step in steps.items():
        _, errors = step.communicate(timeout=240)
        assert time.monotonic() - begun < 120, "MLflow's own retries take four minutes"
        code, recorded, said = WAYS[how]
        assert (step.returncode, said in errors) == (code, True), errors
        record = json.loads((folder / how / "error.json").read_text())["message"]
        assert recorded in record["message"]
        assert record["extraInfo"]["exit_code"] == code
        (warning,) = (line for line in errors.splitlines() if line.startswith("warning: MLflow at http"))
        assert f"that train {'was stopped' if code > 128 else 'failed'}" in warning
        assert ("Traceback" in errors) == (how == "a bug")
        assert (folder / how / "trained" / "manifest.json").is_file() == (how == "well")  # the next try finds it


@pytest.mark.slow
def test_what_begins_at_once_has_one_run_above_it_and_a_failure_is_said_although_mlflow_is_away(tmp_path: Path) -> None:
    """Together, since a server takes long to start."""
    with mlflow_server(tmp_path / "mlflow") as uri:
        found, wanted = begin_at_once(uri, 4, 1)
        assert found == wanted
        steps = steps_left_alone(tmp_path, uri, ["a user's mistake"])
    check_ends(tmp_path, steps)


@pytest.mark.slow
def test_so_it_is_with_eight_time_and_again_and_however_a_step_ends(tmp_path: Path) -> None:
    with mlflow_server(tmp_path / "mlflow") as uri:
        found, wanted = begin_at_once(uri, 8, 10)
        assert found == wanted
        steps = steps_left_alone(tmp_path, uri, WAYS)
    check_ends(tmp_path, steps)
