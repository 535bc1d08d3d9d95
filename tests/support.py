"""Functions that several tests call."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from kfp.compiler import Compiler
from kfp.dsl.graph_component import GraphComponent

ROOT = Path(__file__).parents[1]


def run_module(module: str, *arguments: object, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE ARGUMENTS` as a user runs it."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment}, cwd=ROOT)


def compiled_spec(pipeline: GraphComponent, folder: Path) -> dict[str, Any]:
    """What kfp makes of a pipeline."""
    path = folder / "pipeline.yaml"
    Compiler().compile(pipeline, str(path))
    spec: dict[str, Any] = next(iter(yaml.safe_load_all(path.read_text())))
    return spec


def heed_interrupts() -> None:
    """For Popen's preexec_fn: a process started in the background, as CI may start these tests, inherits SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def tracking_at(uri: str) -> Iterator[None]:
    """MLflow pointed there, in this process and in those that it starts; afterwards as it was, environment included."""
    import mlflow

    previous, environment = mlflow.get_tracking_uri(), dict(os.environ)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(previous)
        mlflow.tracking.fluent._active_experiment_id = None
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            del os.environ[name]
        os.environ |= {name: value for name, value in environment.items() if name.startswith("MLFLOW_")}
