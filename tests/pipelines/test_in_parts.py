"""adapt with its source tokenized in parts: the graph, and that whatever follows cannot tell."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import mlflow
import pytest
from support import compiled_spec, run_module

from components import parameters
from components.tokenize.stage import tokenize
from pipelines.adapt import adapt
from pipelines.in_parts import adapt_in_parts

SMALL = ("--task", "sst2", "--source", "sample", "--num-sample-rows", "2500", "--model", "tiny")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compiled_spec(adapt_in_parts, tmp_path_factory.mktemp("compiled"))


def test_it_takes_what_adapt_takes_and_the_number_of_parts(compiled: dict[str, Any]) -> None:
    of_adapt = dict(inspect.signature(adapt.pipeline_func).parameters)
    of_this = dict(inspect.signature(adapt_in_parts.pipeline_func).parameters)
    assert of_this.pop("num_parts").annotation is int
    assert of_this == of_adapt
    known = parameters.descriptions()
    described = compiled["root"]["inputDefinitions"]["parameters"]
    assert {name: " ".join(given["description"].split()) for name, given in described.items()} == {
        name: known[name] for name in (*of_adapt, "num_parts")
    }


def test_parts_are_a_loop_whose_outputs_are_merged(compiled: dict[str, Any]) -> None:
    parts = compiled["components"]["comp-tokenize-in-parts"]["dag"]
    assert set(parts["tasks"]) == {"plan-parts", "for-loop-1", "merge-parts"}
    loop = parts["tasks"]["for-loop-1"]
    assert loop["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--plan-parts-Output"}
    assert "iteratorPolicy" not in loop  # a cluster runs all parts side by side
    collected = parts["tasks"]["merge-parts"]["inputs"]["artifacts"]["parts"]["taskOutputArtifact"]
    assert collected["producerTask"] == "for-loop-1"
    (selected,) = parts["outputs"]["artifacts"]["dataset"]["artifactSelectors"]
    assert selected == {"outputArtifactKey": "dataset", "producerSubtask": "merge-parts"}
    tasks = compiled["root"]["dag"]["tasks"]
    assert set(tasks) == {"resolve", "tokenize-in-parts", "train", "evaluate", "register", "condition-1"}
    for consumer in ("train", "evaluate"):
        given = tasks[consumer]["inputs"]["artifacts"]["dataset"]["taskOutputArtifact"]
        assert given == {"outputArtifactKey": "dataset", "producerTask": "tokenize-in-parts"}


def test_each_step_gets_the_settings_and_each_argument_under_its_own_name(compiled: dict[str, Any]) -> None:
    of_parts = compiled["components"]["comp-tokenize-in-parts"]["dag"]["tasks"]
    steps = {
        "plan-parts": (of_parts["plan-parts"], {"settings", "num_parts"}),
        "tokenize-part": (
            compiled["components"]["comp-for-loop-1"]["dag"]["tasks"]["tokenize-part"],
            {"settings", "num_parts"},
        ),
        "merge-parts": (of_parts["merge-parts"], {"settings"}),
    }
    for step, names in steps.values():
        given = {
            name: value["componentInputParameter"].removeprefix("pipelinechannel--")
            for name, value in step["inputs"]["parameters"].items()
            if "componentInputParameter" in value and name != "part"
        }
        assert given == {name: name for name in names}
    handed = compiled["root"]["dag"]["tasks"]["tokenize-in-parts"]["inputs"]["parameters"]
    assert handed["settings"]["taskOutputParameter"] == {"outputParameterKey": "tokenize", "producerTask": "resolve"}
    assert handed["num_parts"] == {"componentInputParameter": "num_parts"}
    for step in ("plan-parts", "tokenize-part", "merge-parts"):
        for kind in ("parameters", "artifacts"):
            for name, value in compiled["components"][f"comp-{step}"]["inputDefinitions"].get(kind, {}).items():
                assert value.get("description"), f"{step}: {name}"


def test_adapt_itself_has_one_tokenize_step_and_no_loop(tmp_path: Path) -> None:
    spec = compiled_spec(adapt, tmp_path)
    assert set(spec["root"]["dag"]["tasks"]) == {"resolve", "tokenize", "train", "evaluate", "register", "condition-1"}
    assert "parameterIterator" not in json.dumps(spec)


def test_what_has_no_parts_is_refused_before_they_start(tmp_path: Path) -> None:
    done = run_module("pipelines.local", "adapt-in-parts", *SMALL, "--num-parts", 0, "--runs-dir", tmp_path)
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (2, "error: num_parts is 0: give 1 or more")
    assert "tokenize-part" not in done.stdout


@pytest.mark.slow
def test_a_run_in_parts_leaves_what_a_plain_run_would(tmp_path: Path) -> None:
    few = ("--shard-rows", 1000, "--num-updates", 2, "--robustness-rows", 0, "--runs-dir", tmp_path / "runs")
    done = run_module("pipelines.local", "adapt-in-parts", *SMALL, *few, "--num-parts", 3, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^tokenize-part: (part \d) \((\d) of 3\)$", done.stdout, re.MULTILINE) == [
        (f"part {part}", str(part + 1)) for part in range(3)
    ]
    whole = tokenize(
        task="sst2", source="sample", num_sample_rows=2500, shard_rows=1000, model="tiny", output_dir=tmp_path / "whole"
    )
    (merged,) = (tmp_path / "runs").glob("*/*/merge-parts/dataset/manifest.json")
    assert json.loads(merged.read_text())["digest"] == whole["digest"]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    assert client.get_model_version_by_alias("sample-sst2", "challenger").tags["digest.data"] == whole["digest"]

    again = run_module("pipelines.local", "adapt", *SMALL, *few, timeout=900)
    assert again.returncode == 0, again.stdout + again.stderr
    cached = re.findall(r"^  (\w+): cached, from", again.stdout, re.MULTILINE)
    assert cached == ["tokenize", "train", "evaluate"]
