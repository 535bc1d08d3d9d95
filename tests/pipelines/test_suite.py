"""adapt over tasks and seeds: the contract, and a whole run through the command a user types."""

import inspect
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import mlflow
import pytest
from support import ROOT, compiled_spec, heed_interrupts, run_module

from components import parameters
from components.tasks.table import TASKS
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
    inputs = compiled["components"]["comp-for-loop-1"]["dag"]["tasks"]["adapt"]["inputs"]["parameters"]
    forwarded = {name: given["componentInputParameter"] for name, given in inputs.items() if name not in OF_EACH_RUN}
    assert forwarded == {name: f"pipelinechannel--{name}" for name in of_adapt & of_suite}
    keys = {name: inputs[name]["parameterExpressionSelector"] for name in OF_EACH_RUN}
    assert keys == {"task": 'parseJson(string_value)["glue_task"]', "seed": 'parseJson(string_value)["seed"]'}


def test_defaults_and_descriptions_are_those_of_the_parameters(compiled: dict[str, Any]) -> None:
    for name, parameter in inspect.signature(suite.pipeline_func).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            assert parameter.default is getattr(parameters, name), name
    known = parameters.descriptions()
    described = compiled["root"]["inputDefinitions"]["parameters"]
    assert {name: " ".join(given["description"].split()) for name, given in described.items()} == {
        name: known[name] for name in inspect.signature(suite.pipeline_func).parameters
    }
    for name, given in compiled["components"]["comp-suite"]["inputDefinitions"]["parameters"].items():
        assert given.get("description"), name
    assert set(parameters.tasks) == {name for name, task in TASKS.items() if task.submission}


def test_a_cluster_runs_the_loop_side_by_side(compiled: dict[str, Any]) -> None:
    assert "iteratorPolicy" not in compiled["root"]["dag"]["tasks"]["for-loop-1"]


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


@pytest.mark.slow
def test_tasks_and_seeds_become_a_table_and_a_zip(tmp_path: Path) -> None:
    command = (*SMALL, "--tasks", "wnli", "--seeds", "0,1", "--runs-dir", tmp_path)
    done = run_module("pipelines.local", *command, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    headings = re.findall(r"^(\w+): (\w+, seed \d) \((\d) of 2\)$", done.stdout, re.MULTILINE)
    stages = ("tokenize", "train", "evaluate", "register")
    always = [heading for heading in headings if heading[0] != "promote"]  # as luck has it
    assert always == [(stage, f"wnli, seed {seed}", str(seed + 1)) for seed in (0, 1) for stage in stages]
    assert re.search(r"^\| wnli +\| accuracy +\| +2 \| +\d+\.\d\d \| ", done.stdout, re.MULTILINE)
    shown = dict(re.findall(r"^(\w+) {1,}(/.*)$", done.stdout, re.MULTILINE))
    assert "<table>" in Path(shown["table"]).read_text()
    with zipfile.ZipFile(shown["submission"]) as archive:
        assert archive.namelist() == ["WNLI.tsv"]

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("adapt")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.stage = 'pipeline'")
    assert parent.info.status == "FINISHED"
    assert {"average_mean", "average_sd", "wnli_mean"} <= set(parent.data.metrics)
    assert len(client.search_model_versions("name = 'glue-wnli'")) == 2

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
