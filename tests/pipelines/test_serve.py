"""What there is to serve, and what is said where there is nothing. That it answers, tests/test_blocks.py sees."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, tracking_at

from components.errors import UserError
from components.tracking.server import RUNS, STORE, sqlite_uri
from pipelines.local import _next
from pipelines.serve import serve


@pytest.fixture
def unsaid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, and no word of where MLflow is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_where_there_is_nothing_one_line_says_so_and_nothing_is_made(unsaid: Path) -> None:
    with pytest.raises(UserError, match="no MLflow server"):
        serve()
    recipe = subprocess.run(["make", "-n", "ui"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    guard = next(line for line in recipe.splitlines() if "test -f runs/mlflow.db" in line)
    done = subprocess.run(["sh", "-c", guard], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: there is no runs/mlflow.db yet: make run\n")
    assert list(unsaid.iterdir()) == []


def test_a_store_without_a_model_and_a_port_that_is_taken_are_one_line(unsaid: Path) -> None:
    with tracking_at(f"sqlite:///{unsaid / 'mlflow.db'}"):
        with pytest.raises(UserError, match="no run in runs has registered a model"):
            serve()
        with pytest.raises(UserError, match=r"has no models:/absent@champion: give another version's as --alias"):
            serve(name="absent")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(UserError, match=f"port {port}: Address already in use: give another as --port"):
                serve(name="absent", port=port)


def test_what_is_named_at_the_end_of_a_run_is_for_where_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    here = sqlite_uri(RUNS / STORE)
    assert here == f"sqlite:///{ROOT}/runs/mlflow.db"
    assert _next(here, RUNS.resolve()) == ["make serve", "make ui", f"export MLFLOW_TRACKING_URI={here}"]
    serving = f"{sys.executable} -m pipelines.serve"
    assert _next("http://mlflow:5000", RUNS.resolve()) == ["export MLFLOW_TRACKING_URI=http://mlflow:5000", serving]
    there = tmp_path / "my runs"
    uri = f"sqlite:///{there}/mlflow.db"
    ui = f"{Path(sys.executable).with_name('mlflow')} ui --backend-store-uri '{uri}'"
    assert _next(uri, there) == [f"export MLFLOW_TRACKING_URI='{uri}'", f"{serving} --runs-dir '{there}'", ui]
