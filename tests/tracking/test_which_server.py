"""Which MLflow is talked to where nothing is said, and that nothing is made where one stands."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from support import tracking_at

from components.errors import UserError
from components.tracking.server import experiment_id, own_experiment, use_server


@pytest.fixture
def unsaid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, and no word of where MLflow is."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def made(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_nothing_said_is_the_local_runs_of_this_folder_and_what_is_stored_lies_beside_it(unsaid: Path) -> None:
    with tracking_at(f"sqlite:///{unsaid / 'runs' / 'mlflow.db'}"):
        (unsaid / "runs").mkdir()
        mlflow.MlflowClient().search_experiments()
    with tracking_at("sqlite:///another.db"), pytest.MonkeyPatch.context() as patched:
        patched.delenv("MLFLOW_TRACKING_URI")
        use_server()
        assert mlflow.get_tracking_uri() == f"sqlite:///{unsaid / 'runs' / 'mlflow.db'}"
        with mlflow.start_run(experiment_id=own_experiment()):
            mlflow.log_text("text", "file.txt")
    assert {path for path in made(unsaid) if path.count("/") < 2} == {"runs", "runs/mlflow.db", "runs/mlflow-artifacts"}


def test_what_is_said_is_taken(unsaid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (unsaid / "runs").mkdir()
    (unsaid / "runs" / "mlflow.db").touch()
    with tracking_at("http://127.0.0.1:9"):
        use_server()
        assert mlflow.get_tracking_uri() == "http://127.0.0.1:9"
        use_server("http://127.0.0.1:10")
        assert mlflow.get_tracking_uri() == "http://127.0.0.1:10"
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
        assert own_experiment() is None


def test_a_file_named_by_where_one_stands_keeps_what_is_stored_beside_it(unsaid: Path) -> None:
    with tracking_at("sqlite:///mine.db"):
        client = mlflow.MlflowClient()
        location = client.get_experiment(experiment_id(client, "adapt")).artifact_location
    assert location == (unsaid / "mlflow-artifacts").as_uri()


def test_nothing_said_and_nothing_there_is_one_line_and_nothing_is_made(unsaid: Path) -> None:
    with pytest.raises(UserError, match="no MLflow server: set MLFLOW_TRACKING_URI, or go to the folder that has runs"):
        use_server()
    for command in (
        ["components.promote", "--model-uri", "models:/absent/1"],
        ["components.lineage", "show", "models:/absent/1"],
        ["components.lineage", "impact", "0123456789"],
    ):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
        assert done.stderr.startswith("error: no MLflow server: set MLFLOW_TRACKING_URI")
    assert made(unsaid) == set()
