"""The metrics of a training job while it goes on, through a real store into a real MLflow."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from servers import BUCKET, s3_server

from components.artifacts.names import TRAINING_LOG
from components.artifacts.provenance import Tracking
from components.launch import relay
from components.storage import s3
from components.tracking.runs import stage_run

OUTPUT = f"s3://{BUCKET}/live/trained"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[None]:
    with s3_server(tmp_path / "s3") as environment, pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        patched.setattr(relay, "SECONDS", 0.1)
        patched.chdir(tmp_path)
        patched.setenv("PIPELINE_RUN_ID", "p")
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        yield


def until(look: Callable[[], Any]) -> Any:
    """What `look` finds in the end."""
    for _ in range(200):
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError("nothing came")


def test_what_a_node_writes_is_in_mlflow_while_the_job_goes_on(store: None, tmp_path: Path) -> None:
    there, here = tmp_path / "node" / "model", tmp_path / "step" / "trained"
    ranks = there.with_name(".model.17.partial")
    ranks.mkdir(parents=True)
    with stage_run("train", Tracking(experiment="adapt", tracking_uri="")) as run:

        def logged() -> list[tuple[int, float]]:
            return [(point.step, point.value) for point in mlflow.MlflowClient().get_metric_history(run.run_id, "loss")]

        with run.following(here, TRAINING_LOG):
            with relay.published(there, OUTPUT), relay.received(OUTPUT, here):
                (ranks / TRAINING_LOG).write_text('{"update": 1, "loss": 0.5}\n{"update": 2, "lo')
                assert until(logged) == [(1, 0.5)]
                (ranks / TRAINING_LOG).write_text('{"update": 1, "loss": 0.5}\n{"update": 2, "loss": 0.25}\n')
                until(lambda: len(logged()) == 2)
            assert list(here.parent.iterdir()) == []  # what comes now is the model
            here.mkdir()
            (here / TRAINING_LOG).write_text("".join(f'{{"update": {n}, "loss": {0.5**n}}}\n' for n in (1, 2, 3)))
        assert logged() == [(1, 0.5), (2, 0.25), (3, 0.125)]


def test_a_store_that_is_away_stops_nothing(store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ranks := tmp_path / ".model.17.partial").mkdir()
    (ranks / TRAINING_LOG).write_text('{"update": 1, "loss": 0.5}\n')
    endpoint = s3.environment()["AWS_ENDPOINT_URL_S3"]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with relay.published(tmp_path / "model", OUTPUT), relay.received(OUTPUT, tmp_path / "trained"):
        time.sleep(1)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        assert until(lambda: (tmp_path / ".trained.job.partial" / TRAINING_LOG).exists())
