"""A registered model answers over HTTP on this machine: python -m pipelines.serve, or `make serve`."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from components import cli
from components.errors import UserError
from components.registry.versions import CHAMPION
from components.tracking.server import RUNS, use_server

HOST = "127.0.0.1"
EXAMPLE = "serving_input_example.json"  # MLflow's own name for the input example as its servers take it


def serve(*, name: str = "", alias: str = "", port: int = 5001, runs_dir: Path = RUNS) -> None:
    """Serve a registered model until Ctrl-C, and say what request to send.

    The model is looked for at MLFLOW_TRACKING_URI, else in runs/mlflow.db.

    Args:
        name: Registered model; empty takes that of the last local run.
        alias: Which of its versions; empty takes the champion, and where the last local run's model has none yet, that run's.
        port: Where it listens, on this machine alone.
        runs_dir: Folder of the local runs.
    """
    use_server()
    last = "" if name else _last_registered(runs_dir)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what waits after a server's end keeps no other from it
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(f"port {port}: {error.strerror}: give another as --port (make serve PORT=...)") from None
    uri, request = _request(name or last.removeprefix("models:/").rpartition("/")[0], alias, last)
    print(f"{uri} at http://{HOST}:{port}; Ctrl-C ends it. From another shell, when it runs:\n", flush=True)
    print(f"  curl -s http://{HOST}:{port}/invocations -H 'Content-Type: application/json' \\\n    -d {request}\n", flush=True)
    _run(["-m", "mlflow", "models", "serve", "--model-uri", uri, "--env-manager", "local", "--host", HOST, "--port", str(port)])


def _last_registered(runs_dir: Path) -> str:
    """models:/NAME/VERSION, as the last local run has it."""
    written = sorted(runs_dir.glob("*/**/register/model_uri"), key=lambda path: path.stat().st_mtime)
    if not written:
        raise UserError(f"no run in {runs_dir} has registered a model: give one as --name (make serve NAME=...), or `make run`")
    return written[-1].read_text()


def _request(name: str, alias: str, otherwise: str) -> tuple[str, str]:
    """models:/NAME/VERSION, and the first row of its input example as a shell's word.

    Args:
        otherwise: The version to take where there is no champion and no alias is asked for.

    Raises:
        UserError: there is no such version.
    """
    import mlflow  # seconds, as is the next

    from components.registry.fetching import find_version
    from components.tracking.runs import reachable

    client = mlflow.MlflowClient()
    with reachable():
        try:
            version = find_version(client, f"models:/{name}@{alias or CHAMPION}")
        except UserError as error:
            if alias or not otherwise:
                raise UserError(f"{error}: give another version's as --alias (make serve ALIAS=...)") from None
            version = find_version(client, otherwise)
            print(f"{name} has no champion yet", flush=True)
    uri = f"models:/{name}/{version.version}"
    example: dict[str, Any] = json.loads(Path(mlflow.artifacts.download_artifacts(f"{uri}/{EXAMPLE}")).read_text())
    if table := example.get("dataframe_split"):
        first: dict[str, Any] = {"dataframe_split": {"columns": table["columns"], "data": table["data"][:1]}}
    else:
        first = {"inputs": example["inputs"][:1]}
    return uri, shlex.quote(json.dumps(first))


def _run(command: list[str]) -> None:
    """Python with `command` until it ends, or until Ctrl-C or SIGTERM ends it and what it has started."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # where MLflow looks for its web server
    with subprocess.Popen([sys.executable, *command], env={**os.environ, "PATH": path}, start_new_session=True) as server:

        def end(signum: int, frame: FrameType | None) -> None:
            os.killpg(server.pid, signal.SIGTERM)

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        if (code := server.wait()) > 0:
            raise SystemExit(code)


if __name__ == "__main__":
    cli.run(serve, "python -m pipelines.serve")
