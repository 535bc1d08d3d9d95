"""The contract: every pipeline parameter reaches, under its own name, the stage that uses it; and is described on the way."""

import ast
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import compiled_spec

from components import parameters
from pipelines.adapt import adapt

STAGES = ("tokenize", "train", "evaluate", "register", "promote")
OF_THE_COMPONENT = {
    "num_processes": "launched",
    **dict.fromkeys(("experiment", "tracking_uri", "pipeline_run_id"), "stage_run"),
    "pipeline_task_id": "set_run",
    "auto_promote": "next_step",
}
"""Parameters that the component itself uses, and the function it hands them to."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compiled_spec(adapt, tmp_path_factory.mktemp("compiled"))


def inputs_of(compiled: dict[str, Any], stage: str) -> dict[str, Any]:
    """Parameter -> where its value comes from, of a task of the pipeline or of its branches."""
    dags = [compiled["root"]["dag"], *(part["dag"] for part in compiled["components"].values() if "dag" in part)]
    (task,) = (dag["tasks"][stage] for dag in dags if stage in dag["tasks"])
    given: dict[str, Any] = task["inputs"]["parameters"]
    return given


def stage_function(stage: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(importlib.import_module(f"components.{stage}.stage"), stage)
    return function


def handed_on(stage: str) -> dict[str, set[str]]:
    """Function called in the component's body -> the names it is given, each as a keyword or dict key of the same name."""
    tree = ast.parse(Path(f"components/{stage}/component.py").read_text())
    calls: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            named = {word.arg for word in node.keywords if isinstance(word.value, ast.Name) and word.arg == word.value.id}
            positional = {word.id for word in node.args if isinstance(word, ast.Name)}
            calls.setdefault(node.func.id, set()).update(filter(None, named | positional))
        if isinstance(node, ast.Dict):  # the arguments that train's component launches the stage with
            pairs = [(key, value) for key, value in zip(node.keys, node.values, strict=True) if isinstance(value, ast.Name)]
            same = {value.id for key, value in pairs if isinstance(key, ast.Constant) and key.value == value.id}
            calls.setdefault(stage, set()).update(same)
    return calls


def test_every_pipeline_parameter_reaches_a_stage_under_its_own_name(compiled: dict[str, Any]) -> None:
    reached = set()
    for stage in STAGES:
        calls = handed_on(stage)
        for name, given in inputs_of(compiled, stage).items():
            if "componentInputParameter" in given:
                assert given["componentInputParameter"].removeprefix("pipelinechannel--").removeprefix("register-") == name
                reached.add(name)
            elif "taskOutputParameter" not in given:
                assert name in ("pipeline_run_id", "pipeline_task_id")
            function = OF_THE_COMPONENT.get(name, stage)
            assert name in calls[function], f"components/{stage}/component.py does not hand {name} to {function}"
            if function == stage:
                assert name in inspect.signature(stage_function(stage)).parameters, f"{stage}() has no {name}"
    assert reached - {"model_uri"} == set(inspect.signature(adapt.pipeline_func).parameters)


def test_every_stage_argument_is_a_parameter_of_the_pipeline() -> None:
    directories = {"data_dir", "model_dir", "evaluation_dir", "output_dir", "model_uri"}
    in_parts = {"part", "num_parts", "source_files"}
    offered = set(inspect.signature(adapt.pipeline_func).parameters)
    for stage in STAGES:
        assert set(inspect.signature(stage_function(stage)).parameters) - directories - in_parts <= offered


def test_a_default_is_the_same_at_every_hop() -> None:
    for function in (adapt.pipeline_func, *map(stage_function, STAGES)):
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default is not inspect.Parameter.empty:
                assert parameter.default is getattr(parameters, name), f"{function.__name__}: {name}"
    source = "".join(Path(f"components/{stage}/{file}.py").read_text() for stage in STAGES for file in ("stage", "component"))
    source += Path("pipelines/adapt.py").read_text()
    for node in ast.walk(ast.parse(source.replace("from __future__", "#"))):
        if isinstance(node, ast.FunctionDef) and node.name in (*STAGES, "stages"):
            for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
                assert isinstance(default, ast.Attribute), f"{node.name} has a default of its own in line {default.lineno}"


def test_every_parameter_is_described_for_the_kubeflow_ui(compiled: dict[str, Any]) -> None:
    known = parameters.descriptions()
    described = compiled["root"]["inputDefinitions"]["parameters"]
    assert {name: " ".join(given["description"].split()) for name, given in described.items()} == {
        name: known[name] for name in inspect.signature(adapt.pipeline_func).parameters
    }
    for stage in STAGES:
        component = compiled["components"][f"comp-{stage}"]
        for kind in ("parameters", "artifacts"):
            for name, given in component["inputDefinitions"].get(kind, {}).items():
                assert given.get("description"), f"{stage}: {name}"


def test_artifacts_have_their_types(compiled: dict[str, Any]) -> None:
    types = {
        name: given["artifactType"]["schemaTitle"]
        for stage in STAGES
        for name, given in compiled["components"][f"comp-{stage}"].get("outputDefinitions", {}).get("artifacts", {}).items()
    }
    assert types == {
        "dataset": "system.Dataset",
        "trained": "system.Model",
        "evaluation": "system.Artifact",
        "metrics": "system.Metrics",
        "confusion": "system.ClassificationMetrics",
        "summary": "system.Markdown",
        "report": "system.HTML",
        "card": "system.Markdown",
    }
