"""adapt over tasks and seeds: the contract, and a whole run through the command a user types."""

import inspect
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run
from support import ROOT, compiled_spec, heed_interrupts, run_module

from components import parameters
from components.artifacts.provenance import Iteration
from components.cli import with_changes
from components.resolve.stage import check, every_run, texts_of
from components.suite.step import runs_step
from components.tasks.table import TASKS
from components.tracking.steps import iteration_of
from components.train.settings import as_given, settle
from pipelines.adapt import adapt
from pipelines.command import without_commas
from pipelines.suite import OF_EACH_RUN, OF_OWN_DATA, suite

SMALL = ["suite", "--source", "sample", "--num-sample-rows", "80", "--model", "tiny", "--num-epochs", "1"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compiled_spec(suite, tmp_path_factory.mktemp("compiled"))


def test_a_suite_takes_what_adapt_takes_and_hands_it_on(compiled: dict[str, Any]) -> None:
    of_suite, of_adapt = (set(inspect.signature(it.pipeline_func).parameters) for it in (suite, adapt))
    assert of_suite == {"tasks", "seeds"} | of_adapt - {*OF_EACH_RUN, *OF_OWN_DATA}
    inputs = compiled["root"]["dag"]["tasks"]["resolve"]["inputs"]["parameters"]
    handed = {name: given.get("componentInputParameter") for name, given in inputs.items()}
    nothing = {*OF_EACH_RUN, *OF_OWN_DATA}
    assert {name: of for name, of in handed.items() if name not in nothing} == {name: name for name in of_suite}
    assert not any(inputs[name]["runtimeValue"]["constant"] for name in nothing)


def named(task: str, seed: int) -> str:
    text = f"task={task}, seed={seed}"
    assert iteration_of(text) == Iteration(f"{task}, seed {seed}", {"task": task, "seed": str(seed)})
    return text


def test_each_run_has_the_common_settings_and_what_is_its_own(compiled: dict[str, Any]) -> None:
    tasks = compiled["components"]["comp-for-loop-1"]["dag"]["tasks"]
    for stage, key in (("tokenize", "data"), ("train", "training")):
        given = tasks[stage]["inputs"]["parameters"]["of_run"]
        assert given["parameterExpressionSelector"] == f'parseJson(string_value)["{key}"]'
    assert set(tasks) == {"tokenize", "train", "evaluate", "register", "condition-2"}
    every = runs_step(["rte", "cola"], [0.0, 1.0], "hub")
    assert every == [
        {"data": {"task": task}, "training": {"seed": seed, "iteration": named(task, seed)}}
        for task in ("rte", "cola")
        for seed in (0, 1)
    ]  # whose data are the same for every seed
    (generated,) = runs_step(["rte"], [3.0], "sample")
    assert generated == {"data": {"task": "rte", "seed": 3}, "training": {"seed": 3, "iteration": named("rte", 3)}}


@pytest.mark.parametrize("given", [{"source": "sample"}, {"source": "/data/glue"}, {"source": "sample", "recipe": "scala"}])
def test_a_run_of_a_suite_is_told_what_it_would_be_alone(given: dict[str, Any]) -> None:
    """Its texts, with what is its own, lead to the same artifacts."""
    values = check({**given, "model": "tiny", "tasks": ["rte", "mnli"], "seeds": [1, 2]})
    of_all = texts_of(every_run(values)[0], of_suite=True)
    for own, of_run in zip(every_run(values), runs_step(["rte", "mnli"], [1, 2], given["source"]), strict=True):
        alone = texts_of(own)
        assert json.loads(with_changes(of_all["tokenize"], of_run["data"])) == json.loads(alone["tokenize"])
        of_training = {name: value for name, value in of_run["training"].items() if name != "iteration"}
        told, wanted = (as_given(text, {}) for text in (with_changes(of_all["train"], of_training), alone["train"]))
        for num_rows in (4000,) if given["source"] == "sample" else (200, 20_000):
            assert settle(told, num_rows) == settle(wanted, num_rows)
        assert {stage: of_all[stage] for stage in ("evaluate", "register", "promote")} == {
            stage: alone[stage] for stage in ("evaluate", "register", "promote")
        }


def test_defaults_and_descriptions_are_those_of_the_parameters(compiled: dict[str, Any]) -> None:
    for name, parameter in inspect.signature(suite.pipeline_func).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            assert parameter.default is getattr(parameters, name), name
    known = parameters.descriptions()
    described = compiled["root"]["inputDefinitions"]["parameters"]
    assert {name: " ".join(given["description"].split()) for name, given in described.items()} == {
        name: known[name] for name in inspect.signature(suite.pipeline_func).parameters
    }
    assert set(parameters.tasks) == {name for name, task in TASKS.items() if task.submission}


def test_a_cluster_runs_the_loop_side_by_side(compiled: dict[str, Any]) -> None:
    assert "iteratorPolicy" not in compiled["components"]["comp-all-runs"]["dag"]["tasks"]["for-loop-1"]


def test_lists_may_have_commas_or_spaces() -> None:
    tokens = "suite --tasks rte,cola stsb --seeds=0,1 --source a,b --model m --text-columns x,y".split()
    spread = "suite --tasks rte cola stsb --seeds 0 1 --source a,b --model m --text-columns x,y".split()
    assert without_commas(tokens) == spread


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--tasks rte,sst3", "error: tasks has 'sst3'"),
        ("--tasks rte,rte", "error: tasks has rte more than once"),
        ("--seeds 1 1", "error: seeds has 1 more than once"),
        ("--seeds", "error: seeds is empty"),
        ("--seeds one", 'error: Invalid value for --seeds: unable to convert "one" into int'),
    ],
)
def test_a_users_mistake_is_one_line_before_anything_runs(tmp_path: Path, arguments: str, message: str) -> None:
    done = run_module("pipelines.local", *SMALL, *arguments.split(), "--runs-dir", tmp_path / "runs")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert done.stderr.startswith(message)
    assert not (tmp_path / "runs").exists()


def tree_below(client: mlflow.MlflowClient, run: Run) -> dict[str, Any]:
    """Name -> the same of what is below it."""
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    return {str(it.info.run_name): tree_below(client, it) for it in client.search_runs([run.info.experiment_id], query)}


@pytest.mark.slow
def test_tasks_and_seeds_become_a_table(tmp_path: Path) -> None:
    command = (*SMALL, "--tasks", "wnli", "--seeds", "0,1", "--runs-dir", tmp_path)
    done = run_module("pipelines.local", *command, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    headings = re.findall(r"^(\w+): (\w+, seed \d) \((\d) of 2\)$", done.stdout, re.MULTILINE)
    stages = ("tokenize", "train", "evaluate", "register")
    always = [heading for heading in headings if heading[0] != "promote"]  # as luck has it
    assert always == [(stage, f"wnli, seed {seed}", str(seed + 1)) for seed in (0, 1) for stage in stages]
    assert re.search(r"^# Generated data in the form of GLUE, fine-tuned from tiny", done.stdout, re.MULTILINE)
    assert re.search(r"^\| sample-wnli +\| accuracy +\| +2 \| +\d+\.\d\d \| ", done.stdout, re.MULTILINE)
    shown = dict(re.findall(r"^(table|submission) +(.*)$", done.stdout, re.MULTILINE))
    assert "<table>" in Path(shown["table"]).read_text()
    assert shown["submission"] == "none, of generated data"

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("adapt")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.stage = 'pipeline'")
    of_seed: dict[str, Any] = {
        f"wnli, seed {seed}": {name: {} for name, iteration, _ in headings if name != "tokenize" and iteration[-1] == str(seed)}
        for seed in (0, 1)
    }
    assert tree_below(client, parent) == {**{f"tokenize wnli, seed {seed}": {} for seed in (0, 1)}, **of_seed, "suite": {}}
    iterations = client.search_runs([experiment.experiment_id], "tags.stage = 'iteration'")
    assert sorted(run.data.params["seed"] for run in iterations) == ["0", "1"]
    assert {run.data.params["task"] for run in iterations} == {"wnli"}
    assert sum(run.data.metrics["score"] for run in iterations) / 2 == pytest.approx(parent.data.metrics["average_mean"])
    assert {run.info.status for run in (*iterations, parent)} == {"FINISHED"}
    assert "score" not in parent.data.metrics
    assert {"average_mean", "average_sd", "sample-wnli_mean"} <= set(parent.data.metrics)
    assert "seed 0" in parent.data.tags["generated"]
    assert len(client.search_model_versions("name = 'sample-wnli'")) == 2

    again = run_module("pipelines.local", *command, timeout=900)
    assert again.returncode == 0, again.stdout + again.stderr
    cached = re.findall(r"^  (\w+): cached, from", again.stdout, re.MULTILINE)
    assert cached == ["tokenize", "train", "evaluate"] * 2 + ["suite"]
    assert "registered:" not in again.stdout


@pytest.mark.slow
def test_a_stopped_suite_starts_nothing_more(tmp_path: Path) -> None:
    arguments = [*SMALL, "--tasks", "rte,wnli", "--seeds", "0", "--num-updates", "100000", "--log-interval", "1"]
    command = [sys.executable, "-m", "pipelines.local", *arguments, "--runs-dir", str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heed_interrupts}
    with subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        for line in process.stdout:
            if "update 3:" in line:
                break
        process.send_signal(signal.SIGTERM)
        shown, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "Traceback" not in errors
    assert "wnli" not in shown
    assert list(tmp_path.rglob("*.partial")) == []
