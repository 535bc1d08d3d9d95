"""What is compiled for a cluster says what kfp says, in fewer words."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kfp.dsl.graph_component import GraphComponent
from support import ROOT

from components.image import IMAGE, TRAIN_IMAGE
from pipelines.adapt import adapt
from pipelines.compile import compiled
from pipelines.suite import suite

OURS = {IMAGE: IMAGE, TRAIN_IMAGE: TRAIN_IMAGE}


def command_of(step: str) -> list[str]:
    spec, _ = compiled(adapt, OURS)
    container = spec.deployment_spec["executors"][f"exec-{step}"]["container"]
    return [*container["command"], *container["args"]]


def started(command: list[str], executor_input: dict[str, object], folder: Path) -> subprocess.Popen[str]:
    filled = [json.dumps(executor_input) if word == "{{$}}" else word for word in command]
    known = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    known |= {"PIPELINE_RUN_ID": "run-1", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "TMPDIR": str(folder)}
    return subprocess.Popen(filled, cwd=folder, env=known, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_a_step_runs_by_its_compiled_command(tmp_path: Path) -> None:
    given = {"task": "sst2", "source": "sample", "model": "tiny", "recipe": "", "num_epochs": 0, "learning_rate": 0}
    given |= {"global_batch_size": 0, "max_length": 128, "text_columns": [], "label_column": "", "seed": 0, "num_workers": 1}
    given |= {"num_gpus_per_worker": 0, "cpu_per_worker": "", "memory_per_worker": "", "launcher": "auto", "name": ""}
    given |= {"auto_promote": True, "experiment": "adapt", "overrides": {"dropout": 0.2}, "tasks": [], "seeds": []}
    outputs = {
        stage: {"outputFile": str(tmp_path / stage)} for stage in ("tokenize", "train", "evaluate", "register", "promote")
    }
    record = str(tmp_path / "outputs.json")
    executor_input = {
        "inputs": {"parameterValues": {**given, "image_pull_secrets": ["pull"]}},
        "outputs": {"parameters": outputs, "outputFile": record},
    }
    with started(command_of("resolve"), executor_input, tmp_path) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    train = json.loads(json.loads(Path(record).read_text())["parameterValues"]["train"])
    assert (train["dropout"], train["image_pull_secrets"]) == (0.2, ["pull"])


def test_a_steps_python_takes_the_signal_itself(tmp_path: Path) -> None:
    """kfp's own shell would wait for its child, and hand no signal on."""
    rows = "".join(f"a long story of {row},yes\na short one,no\n" for row in range(100_000))
    (tmp_path / "own.csv").write_text(f"text,label\n{rows}")
    from components import cli
    from components.artifacts.provenance import Tracking
    from components.tokenize.settings import Tokenizing

    given: dict[str, object] = {"task": "own", "source": str(tmp_path / "own.csv"), "model": "tiny"}
    given |= {"text_columns": ["text"], "label_column": "label"}
    settings = cli.write(cli.pick(Tokenizing, given), cli.pick(Tracking, {}))
    dataset = {"name": "dataset", "type": {"schemaTitle": "system.Dataset"}, "uri": str(tmp_path / "out" / "dataset")}
    executor_input = {
        "inputs": {"parameterValues": {"settings": settings}},
        "outputs": {"artifacts": {"dataset": {"artifacts": [dataset]}}, "outputFile": str(tmp_path / "outputs.json")},
    }
    with started(command_of("tokenize"), executor_input, tmp_path) as process:
        for _ in range(600):
            if list(tmp_path.glob("out/.dataset.*.partial")):
                break
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert not list(tmp_path.glob("out/.dataset.*"))


@pytest.mark.parametrize("pipeline", [adapt, suite])
def test_descriptions_are_where_people_read_them(pipeline: GraphComponent) -> None:
    spec, _ = compiled(pipeline, OURS)
    assert all(given.description for given in spec.root.input_definitions.parameters.values())
    for component in spec.components.values():
        assert not any(given.description for given in component.input_definitions.parameters.values())
        assert not any(given.description for given in component.input_definitions.artifacts.values())
