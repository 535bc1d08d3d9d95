"""Nothing reaches out: the pipeline with no network but loopback. And what does try to reach out is found so."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

LOOPBACK = "ip link set lo up && "


def alone(*command: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a network namespace of its own, in which there is loopback and nothing else."""
    inside = LOOPBACK + "exec " + shlex.join(map(str, command))
    given = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "MLFLOW_")) and "proxy" not in name.lower()
    }
    return subprocess.run(
        ["unshare", "-rn", "sh", "-c", inside],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=cwd,
        env={**given, **environment},
    )


@pytest.fixture(autouse=True)
def can_be_alone() -> None:
    try:
        done = alone("true")
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode:
        pytest.skip(f"no network namespace to be had here: {done.stderr.strip()}")


COMPILED = """
import sys
from kfp import components, local
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2])
components.load_component_from_file(sys.argv[1])(
    task="sst2", source="sample", model="tiny", num_epochs=1.0,
    overrides={"num_sample_rows": 120, "robustness_rows": 10, "num_processes": 2},
)
"""


def pipeline(tmp_path: Path, source: str) -> subprocess.CompletedProcess[str]:
    what = ["--task", "sst2", "--source", source, "--num-sample-rows", 120, "--model", "tiny", "--num-epochs", 1]
    more = ["--robustness-rows", 10, "--num-processes", 2, "--runs-dir", tmp_path / "runs"]
    return alone(sys.executable, "-m", "pipelines.local", "adapt", *what, *more, HOME=str(tmp_path), PYTHONPATH=str(ROOT))


def test_there_is_no_way_out_but_loopback() -> None:
    code = (
        "import socket; it = socket.create_server(('127.0.0.1', 0)); socket.create_connection(it.getsockname()); print('yes')"
    )
    assert alone(sys.executable, "-c", code).stdout == "yes\n"
    outside = alone(sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 443), 5)")
    assert "Network is unreachable" in outside.stderr


@pytest.mark.slow
def test_the_compiled_pipeline_needs_no_network(tmp_path: Path) -> None:
    """The very file that a cluster gets, with its exit handler, from text to registered model."""
    subprocess.run([sys.executable, "pipelines/compile.py", "--output-dir", tmp_path], cwd=ROOT, check=True)
    known = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    known["PIPELINE_RUN_ID"] = "first"  # on a cluster a label of the pod
    done = alone(sys.executable, "-c", COMPILED, tmp_path / "adapt.yaml", tmp_path / "runs", cwd=tmp_path, **known)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "registered: sample-sst2 version 1" in done.stdout
    assert re.search(r"clean-up\S* finished with status \S*SUCCESS", done.stdout), done.stdout[-1500:]


@pytest.mark.slow
def test_a_source_that_needs_the_network_says_so_in_one_line(tmp_path: Path) -> None:
    done = pipeline(tmp_path, "hub")
    assert done.returncode == 2, done.stdout[-2000:] + done.stderr[-2000:]
    (line,) = done.stderr.splitlines()[-1:]
    assert line.startswith("error: cannot find nyu-mll/glue on the hub: ")
    assert "or give --source a folder" in line


def test_compiling_needs_no_network(tmp_path: Path) -> None:
    done = alone(sys.executable, "pipelines/compile.py", "--output-dir", tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "adapt.yaml").is_file()
