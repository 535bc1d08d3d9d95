"""Records say what took effect, and the same training has the same digest."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from support import run_module

from components.artifacts.folders import read_manifest
from components.artifacts.provenance import Tracking
from components.evaluate.stage import evaluate
from components.register.stage import register
from components.tracking.runs import stage_run
from components.train.settings import settle
from components.train.stage import train

UNSET: dict[str, Any] = {"model": "tiny", "num_epochs": 1}


def test_what_nobody_gave_is_in_every_record_as_it_took_effect(
    tracking: str, tokenized: Callable[[str], Path], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, data_dir = tmp_path / "m", tokenized("rte")
    manifest = train(data_dir=data_dir, output_dir=model_dir, **UNSET)
    said = capsys.readouterr().out
    effective, timings = manifest["effective"], manifest["timings"]
    assert (effective["global_batch_size"], effective["precision"] in ("fp32", "bf16")) == (16, True)  # few-rows
    assert effective["num_updates"] == 13
    assert (effective["num_train_rows"], effective["num_examples"], effective["num_ranks"]) == (200, 200, 1)
    assert effective["num_tokens"] == sum(json.loads(line)["tokens"] for line in (model_dir / "metrics.jsonl").open())
    assert timings["samples_per_second"] == pytest.approx(200 / timings["seconds"], rel=0.01)
    line = next(line for line in said.splitlines() if "updates of" in line)
    assert f"{effective['num_updates']} updates of 16, learning rate {effective['learning_rate']:.3g}" in line
    assert f"{effective['precision']}, {effective['num_parameters']:,} parameters" in line

    with_record = json.loads((model_dir / "training.json").read_text())
    assert (with_record["took_effect"], with_record["timings"]) == (effective, timings)
    assert with_record["asked"] == UNSET
    evaluate(model_dir=model_dir, data_dir=data_dir, output_dir=tmp_path / "e")
    results = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert (results["training"], results["timings"]) == (effective, timings)
    card = register(model_dir=model_dir, evaluation_dir=tmp_path / "e", name="effective")["card"]
    for name in (
        "learning_rate",
        "num_updates",
        "global_batch_size",
        "precision",
        "num_parameters",
        "num_tokens",
        "num_epochs",
    ):
        assert f"`{name}={effective[name]}`" in card
    assert f"{timings['samples_per_second']:.1f} samples/s" in card
    assert "`precision=auto`" in card.partition("Asked for otherwise")[2]
    assert not re.search(r"=0(\.0)?`", card.partition("Asked for otherwise")[2].partition("\n")[0])

    monkeypatch.setenv("PIPELINE_RUN_ID", "effective-1")
    with stage_run("train", Tracking("adapt", tracking)) as run:
        run.log_manifest(manifest)
    logged = mlflow.MlflowClient().get_run(run.run_id).data
    for name, value in effective.items():
        assert logged.params[name] == str(value)
    assert logged.params["asked.precision"] == "auto"
    assert "asked.num_updates" not in logged.params  # nobody did
    assert logged.metrics["train_samples_per_second"] == timings["samples_per_second"]
    report = (tmp_path / "e" / "report.html").read_text()
    assert re.search(rf"<th>precision</th><td>{effective['precision']} .*asked for: auto", report)


def test_mlflow_has_the_seconds_of_every_update_of_a_run_too_short_to_be_seen_at_work(
    tracking: str, tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_RUN_ID", "effective-2")
    with stage_run("train", Tracking("adapt", tracking)) as run, run.following(tmp_path / "m", "metrics.jsonl"):
        train(data_dir=tokenized("rte"), output_dir=tmp_path / "m", model="tiny", num_updates=3)
    history = mlflow.MlflowClient().get_metric_history(run.run_id, "seconds")
    clock = [json.loads(line) for line in (tmp_path / "m" / "timings.jsonl").open()]
    assert [(point.step, point.value) for point in history] == [(line["update"], line["seconds"]) for line in clock]


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_a_rate_that_nobody_gave_is_the_optimizers_own(optimizer: str) -> None:
    settled = settle({"model": "tiny", "recipe": "plain", "optimizer": optimizer, "learning_rate": 0.0}, 70_000)
    own = {"adamw": 5e-5, "lamb": 2e-4}[optimizer]
    assert (settled.training.learning_rate, settled.training.base_batch_size) == (own, 32)
    given = settle({"model": "tiny", "recipe": "plain", "learning_rate": 3e-4}, 70_000)
    assert (given.training.learning_rate, given.training.base_batch_size) == (3e-4, given.training.global_batch_size)


@pytest.mark.slow
def test_equal_trainings_have_one_digest_and_one_version(
    tracking: str, tokenized: Callable[[str], Path], tmp_path: Path
) -> None:
    """In processes of their own, in other folders, with checkpoints or without."""
    versions, digests = [], []
    for number, minutes in enumerate((10, 0)):
        folder = tmp_path / f"run-{number}"
        options = ["--checkpoint-minutes", minutes, "--num-epochs", 1, "--learning-rate", 1e-3]
        done = run_module(
            "components.train", "--data-dir", tokenized("sst2"), "--model", "tiny", "--output-dir", folder / "m", *options
        )
        assert done.returncode == 0, done.stderr
        evaluated = run_module(
            "components.evaluate", "--model-dir", folder / "m", "--data-dir", tokenized("sst2"), "--output-dir", folder / "e"
        )
        assert evaluated.returncode == 0, evaluated.stderr
        digests.append([read_manifest(folder / "m", "train")["digest"], read_manifest(folder / "e", "evaluate")["digest"]])
        versions.append(register(model_dir=folder / "m", evaluation_dir=folder / "e", name="twice")["version"])
    assert digests[0] == digests[1]
    assert versions == ["1", "1"]
