"""The whole pipeline on this machine, through the command a user types."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from support import ROOT, heed_interrupts, run_module

SCALA = ["--task", "rte", "--recipe", "scala", "--num-epochs", 1]
SMALL = ["adapt", "--source", "sample", "--num-sample-rows", "120", "--model", "tiny", "--log-interval", "1"]


def test_text_to_registered_model_on_two_ranks(tmp_path: Path) -> None:
    done = run_module("pipelines.local", *SMALL, *SCALA, "--num-processes", 2, "--runs-dir", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = dict(re.findall(r"^(\w+) {2,}(.*)$", done.stdout, re.MULTILINE))
    assert re.match(r"0\.\d{4} \(95 % 0\.\d{4} to 0\.\d{4}; majority 0\.\d{4}, bag of words 0\.\d{4}\)", shown["score"])
    assert shown["score"].endswith("), generated data")
    assert "<h1>sample-rte (generated data), fine-tuned from tiny</h1>" in Path(shown["report"]).read_text()
    promoted = shown["gate"] == "may be champion: there is no champion yet"
    assert promoted or "does not beat" in shown["gate"]  # the tiny model has its luck
    assert re.search(
        r"^train\n  train: recipe scala \(it was asked for\), but for num_epochs\n  train: scala, .* 2 rank\(s\) on cpu\n"
        r"(  update \d+: .*\n){4}\nevaluate\n",
        done.stdout,
        re.MULTILINE,
    )
    assert "KFP Executor" not in done.stdout
    assert "KFP Executor" in next(tmp_path.glob("*/run.log")).read_text()

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert f"\nnext, from this shell:\n  export MLFLOW_TRACKING_URI={uri}\n" in done.stdout
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("adapt")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    (parent,) = (run for run in runs.values() if "mlflow.parentRunId" not in run.data.tags)
    assert {name for name, run in runs.items() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id} == {
        "tokenize",
        "train",
        "evaluate",
        "register",
        *(["promote"] if promoted else []),
    }
    assert parent.data.metrics["score"] == pytest.approx(float(shown["score"].split()[0]), abs=1e-4)
    losses = client.get_metric_history(runs["train"].info.run_id, "loss")
    assert [point.step for point in losses] == [1, 2, 3, 4]
    assert runs["train"].data.params["method"] == "scala"
    version = client.get_model_version_by_alias("sample-rte", "challenger")
    assert shown["model"] == f"models:/sample-rte/{version.version}, alias challenger"
    assert version.run_id == runs["register"].info.run_id
    assert version.tags["digest.data"] == runs["tokenize"].data.tags["digest.output"]
    assert str(version.description).startswith("# sample-rte (generated data)\n")
    tags = [version.tags, *(run.data.tags for name, run in runs.items() if name != "promote")]
    assert {tag["generated"] for tag in tags} == {version.tags["generated"]}
    assert version.tags["digest.model"] == runs["train"].data.tags["digest.output"]

    told = json.loads(next(tmp_path.glob("*/*/evaluate/executor_output.json")).read_text(), parse_constant=pytest.fail)
    artifacts = {name: each["artifacts"][0] for name, each in told["artifacts"].items()}
    assert set(artifacts) == {"evaluation", "metrics", "confusion", "summary", "report"}
    assert all(Path(each["uri"]).exists() for each in artifacts.values())
    matrix, curve = (artifacts["confusion"]["metadata"][name] for name in ("confusionMatrix", "confidenceMetrics"))
    assert [each["displayName"] for each in matrix["annotationSpecs"]] == ["entailment", "not_entailment"]
    assert sum(sum(row["row"]) for row in matrix["rows"]) == 30
    assert [curve[0][name] for name in ("falsePositiveRate", "recall")] == [0, 0]
    assert [curve[-1][name] for name in ("falsePositiveRate", "recall")] == [1, 1]
    assert all(0 <= value <= 1.001 for point in curve for value in point.values())
    assert artifacts["metrics"]["metadata"]["validation_auc"] == runs["evaluate"].data.metrics["validation_auc"]
    assert Path(artifacts["summary"]["uri"]).read_text().startswith("# sample-rte (generated data), fine-tuned from tiny\n")

    logged = {file.path for file in client.list_artifacts(runs["evaluate"].info.run_id)}
    assert {"report.html", "summary.md", "errors.json", "predictions.parquet", "figures"} < logged
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {"report.html", "summary.md"}
    assert runs["evaluate"].inputs
    (measured_on,) = runs["evaluate"].inputs.dataset_inputs
    assert {tag.key: tag.value for tag in measured_on.tags}["sha256"] == runs["tokenize"].data.tags["digest.output"]
    assert measured_on.dataset.name == "sample-rte"

    again = run_module("pipelines.local", *SMALL, *SCALA, "--num-processes", 2, "--runs-dir", tmp_path)
    assert re.findall(r"^  (\w+): cached, from", again.stdout, re.MULTILINE) == ["tokenize", "train", "evaluate"], again.stdout
    assert f"already there: sample-rte version {version.version}" in again.stdout
    assert dict(re.findall(r"^(\w+) {2,}(.*)$", again.stdout, re.MULTILINE))["score"] == shown["score"]
    assert len(client.search_model_versions("name = 'sample-rte'")) == 1
    parents = client.search_runs([experiment.experiment_id], "tags.stage = 'pipeline'")
    assert [run.data.metrics["score"] for run in parents] == [parent.data.metrics["score"]] * 2
    made = {f"cached.{stage}": runs[stage].info.run_id for stage in ("tokenize", "train", "evaluate")}
    cached = [{name: tag for name, tag in run.data.tags.items() if name.startswith("cached.")} for run in parents]
    assert sorted(cached, key=len) == [{}, made]
    (note,) = (run.data.tags["mlflow.note.content"] for run in parents if "cached.train" in run.data.tags)
    assert re.findall(r"#/experiments/\d+/runs/(\w+)\)", note) == list(made.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "sst3"], "error: unknown task 'sst3': choose one of cola, sst2"),
        (["--task", "sst2", "--perturbation-radius", "-1"], "error: perturbation_radius is -1.0: give 0 or more"),
    ],
)
def test_a_users_mistake_ends_with_its_line_and_code_2_before_anything_runs(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = run_module("pipelines.local", *SMALL, *arguments, "--runs-dir", tmp_path / "runs")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["--max-length", 1000],
            "error: max_length is 1000, but tiny takes at most 512 tokens",  # tokenize
            marks=pytest.mark.slow,
        ),
        (["--model", "owner/absent"], "error: cannot load model 'owner/absent'"),  # resolve
    ],
)
def test_a_mistake_that_a_step_finds_ends_with_its_line_and_code_2(
    tmp_path: Path, arguments: list[object], message: str
) -> None:
    given = [*SMALL[:5], *([] if "--model" in arguments else ["--model", "tiny"]), *arguments]
    done = run_module("pipelines.local", *given, "--task", "sst2", "--runs-dir", tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert "Traceback" not in done.stdout + done.stderr
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.search_registered_models() == []


@pytest.mark.parametrize(
    "arguments", ["adapt --task", "adapt --source sample", "adept", "adapt --epochs 3", "adapt --num-epochs many"]
)
def test_a_wrong_command_line_is_one_line(arguments: str) -> None:
    done = run_module("pipelines.local", *arguments.split())
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ")


def test_help_lists_the_pipelines_and_their_parameters() -> None:
    assert "adapt" in run_module("pipelines.local", "--help").stdout
    text = run_module("pipelines.local", "adapt", "--help").stdout
    assert "--perturbation-radius" in text
    assert "--num-processes" in text


@pytest.mark.parametrize("stop", ["SIGTERM", pytest.param("Ctrl-C", marks=pytest.mark.slow)])
def test_stopping_ends_every_process_and_leaves_no_half_output(tmp_path: Path, stop: str) -> None:
    arguments = [*SMALL, "--task", "sst2", "--num-epochs", "100000", "--runs-dir", str(tmp_path)]
    command = [sys.executable, "-m", "pipelines.local", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heed_interrupts}
    with subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        for line in process.stdout:
            if "update 3:" in line:
                break
        if stop == "SIGTERM":
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=60)
    assert process.returncode == {"SIGTERM": 143, "Ctrl-C": 130}[stop]
    assert "Traceback" not in errors
    for _ in range(100):
        partial = list(tmp_path.rglob("*.partial"))
        alive = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True).stdout.split()
        if not partial and not alive:
            break
        time.sleep(0.1)
    assert (partial, alive) == ([], [])
    assert list(tmp_path.glob("cache/*.checkpoint/update-*"))  # where the same command finds it
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("adapt")
    assert experiment is not None
    assert {run.info.status for run in client.search_runs([experiment.experiment_id])} == {"KILLED", "FINISHED"}


@pytest.mark.slow
@pytest.mark.glue
@pytest.mark.parametrize(("task", "floor"), [("rte", 0.5), ("cola", 0.1), ("stsb", 0.75)])
def test_real_glue_with_minilm(glue_dir: Path, tmp_path: Path, task: str, floor: float) -> None:
    arguments = [
        "adapt",
        "--task",
        task,
        "--source",
        glue_dir,
        "--model",
        "minilm",
        "--recipe",
        "scala",
        "--runs-dir",
        tmp_path,
    ]
    done = run_module("pipelines.local", *arguments, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    match = re.search(r"^score +(\S+)", done.stdout, re.MULTILINE)
    assert match
    assert float(match[1]) > floor
