"""What tests share: a tokenized sample, a model trained on it, its evaluation, and MLflow in an sqlite file of the session."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
for injected in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
    os.environ.pop(injected, None)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background, as CI may start these tests
    signal.signal(signal.SIGINT, signal.default_int_handler)

GLUE_CANDIDATES = (os.environ.get("GLUE_DIR", ""), ROOT.parent / "shared" / "data" / "glue")


@pytest.fixture(scope="session")
def glue_dir() -> Path:
    """Real GLUE data: Parquet in TASK/, the official files in glue_data/TASK/."""
    for candidate in GLUE_CANDIDATES:
        if candidate and (Path(candidate) / "sst2" / "train.parquet").is_file():
            return Path(candidate)
    pytest.skip("no GLUE data here: set GLUE_DIR to a folder with sst2/train.parquet and glue_data/SST-2/train.tsv")


@pytest.fixture(scope="session")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Task -> a small tokenized sample of it, made once."""
    from components.tokenize.stage import tokenize

    folder = tmp_path_factory.mktemp("tokenized")

    def make(task: str) -> Path:
        tokenize(task=task, source="sample", model="tiny", output_dir=folder / task, num_sample_rows=200)
        return folder / task

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tokenized: Callable[[str], Path]) -> Callable[[str], Path]:
    """Task -> a tiny model, trained for an epoch, the second half with noise."""
    from components.train.stage import train

    folder = tmp_path_factory.mktemp("trained")

    def make(task: str) -> Path:
        how: dict[str, Any] = {"method": "scala", "num_epochs": 1, "learning_rate": 1e-3}
        train(data_dir=tokenized(task), model="tiny", output_dir=folder / task, **how)
        return folder / task

    return make


@pytest.fixture(scope="session")
def evaluated(
    tmp_path_factory: pytest.TempPathFactory, tokenized: Callable[[str], Path], trained: Callable[[str], Path]
) -> Callable[[str], Path]:
    """Task -> the evaluation of that model."""
    from components.evaluate.stage import evaluate

    folder = tmp_path_factory.mktemp("evaluated")

    def make(task: str) -> Path:
        evaluate(model_dir=trained(task), data_dir=tokenized(task), output_dir=folder / task)
        return folder / task

    return make


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A fresh sqlite store, initialised, whose default experiment keeps artifacts below the same folder."""
    import mlflow

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    client.create_experiment("adapt", artifact_location=(folder / "artifacts").as_uri())
    return uri


@pytest.fixture(autouse=True)
def no_server_left_behind() -> Iterator[None]:
    """MLflow writes the server that it was pointed at into the environment, which whatever comes after would take over."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if before:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture
def tracking(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow pointed at that store, with its experiment chosen; nothing of it left behind."""
    import mlflow

    previous = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)  # first: MLflow sets it too, and would leave it set
    mlflow.set_tracking_uri(mlflow_uri)
    experiment = mlflow.MlflowClient().get_experiment_by_name("adapt")
    assert experiment is not None
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment.experiment_id)
    yield mlflow_uri
    assert mlflow.active_run() is None
    mlflow.set_tracking_uri(previous)
