"""The compiled files, and Kubeflow's own command line taking them, against a stub of the KFP API."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT

RUN = {"run_id": "r1", "display_name": "run", "state": "SUCCEEDED", "created_at": "2026-11-20T00:00:00Z", "experiment_id": "e1"}


class _Api(http.server.BaseHTTPRequestHandler):
    posted: list[tuple[str, dict[str, Any]]]

    def _reply(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if "healthz" in self.path:
            self._reply({"multi_user": False})
        elif "/experiments" in self.path:
            self._reply({"experiments": []})
        else:
            self._reply(RUN)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.posted.append((self.path, body))
        self._reply({"experiment_id": "e1", "display_name": "x"} if "/experiments" in self.path else RUN)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kfp_api() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    posted: list[tuple[str, dict[str, Any]]] = []
    handler = type("Api", (_Api,), {"posted": posted})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", posted
        server.shutdown()


@pytest.mark.parametrize("verb", ["create", "submit"])
def test_kfp_run_takes_the_compiled_pipeline(
    build: Path, kfp_api: tuple[str, list[tuple[str, dict[str, Any]]]], verb: str
) -> None:
    endpoint, posted = kfp_api
    command = [str(Path(sys.executable).with_name("kfp")), "--endpoint", endpoint, "run", verb, "-e", "glue", "-r", "first"]
    arguments = ["-f", str(build / "adapt.yaml"), "task=sst2", "source=hub", "model=bert-base-uncased", "num_epochs=2"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ("deprecated" in done.stderr) == (verb == "submit")
    run = next(body for path, body in posted if path.endswith("/runs"))
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "adapt"
    assert "kubernetes" in run["pipeline_spec"]["platform_spec"]["platforms"]
    given = run["runtime_config"]["parameters"]
    assert {name: str(given[name]) for name in ("task", "source", "model")} == {
        "task": "sst2",
        "source": "hub",
        "model": "bert-base-uncased",
    }


def test_every_component_stands_alone(build: Path) -> None:
    names = {path.stem for path in (build / "components").iterdir()}
    in_parts = {"plan-parts", "tokenize-part", "merge-parts"}
    stages = {"resolve", "tokenize", "train", "evaluate", "register", "promote", "clean-up"}
    assert names == {*stages, "runs", "suite", "suite-of-runs", *in_parts, "resolve-pretraining", "corpus", "pretrain"}
    for name in names:
        spec = yaml.safe_load((build / "components" / f"{name}.yaml").read_text())
        container = spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
        assert "pip install" not in " ".join(container["command"])
        assert container["image"]


def test_compiling_twice_gives_the_same_bytes(build: Path, tmp_path: Path) -> None:
    command = [sys.executable, "pipelines/compile.py", "--output-dir", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, timeout=120)
    for path in build.rglob("*.yaml"):
        assert (tmp_path / path.relative_to(build)).read_bytes() == path.read_bytes()
