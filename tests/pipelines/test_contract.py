"""The contract: every parameter reaches, under its own name and with its value, the stages that use it and no other; and it is
described on the way.
"""

import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cyclopts
import pytest
import yaml
from support import compiled_spec

from components import cli, parameters
from components.resolve.stage import KNOWN, OF_ONE_RUN, STAGES, check, texts_of
from components.train import settings
from components.train.settings import OF_METHODS
from pipelines import local, submit
from pipelines.adapt import adapt
from pipelines.command import arguments_of, parsed
from pipelines.doctor import doctor
from pipelines.in_parts import adapt_in_parts
from pipelines.suite import suite

BEFORE = """
task source model max_length text_columns label_column skip_malformed_rows shard_rows num_sample_rows method optimizer
learning_rate base_batch_size learning_rate_scaling warmup_ratio warmup_updates warmup_epochs weight_decay max_grad_norm dropout
num_epochs num_updates global_batch_size micro_batch_tokens precision compile seed log_interval checkpoint_minutes num_processes
launcher num_workers min_workers num_gpus_per_worker cpu_per_worker memory_per_worker shared_memory queue priority_class
image_pull_secrets training_runtime train_image job_storage start_timeout_minutes job_timeout_minutes max_restarts
perturbation_start perturbation_steps perturbation_init_std perturbation_init_norm perturbation_step_size perturbation_radius
perturbation_norm perturbation_scope perturbation_divergence perturbation_weight perturbation_direction perturbation_dropout
perturbation_interval perturbation_fraction robustness_rows name alias champion_margin champion_min_score
champion_min_robustness auto_promote experiment tracking_uri
""".split()
"""What the pipeline took when each of these was a parameter of its own."""

BASE = {"task": "sst2", "source": "/data/glue", "model": "tiny", "label_column": "verdict"}
OTHER: Mapping[str, Any] = {
    "task": "cola", "source": "/data/other", "model": "minilm", "max_length": 64, "text_columns": ["premise", "claim"],
    "label_column": "answer", "skip_malformed_rows": True, "shard_rows": 2000, "num_sample_rows": 300,
    "recipe": "large-batch", "method": "rdrop", "optimizer": "lamb", "learning_rate": 3e-5, "base_batch_size": 64,
    "learning_rate_scaling": "linear", "warmup_ratio": 0.2, "warmup_updates": 5, "warmup_epochs": 0.5, "weight_decay": 0.1,
    "decay_vectors": True, "adam_epsilon": 1e-6, "beta1": 0.8, "beta2": 0.98, "sophia_rho": 0.02, "hessian_interval": 5,
    "perturbation_init": "uniform", "depth": "layerdrop", "depth_keep": 0.7, "depth_rate": 20.0,
    "max_grad_norm": 2.0, "dropout": 0.2, "num_epochs": 2.5, "num_updates": 7, "global_batch_size": 48,
    "micro_batch_tokens": 512, "precision": "fp64", "compile": True, "seed": 3, "log_interval": 5, "checkpoint_minutes": 1.5,
    "num_processes": 2, "launcher": "trainjob", "num_workers": 2, "min_workers": 1, "num_gpus_per_worker": 4,
    "cpu_per_worker": "500m", "memory_per_worker": "64Gi", "shared_memory": "2Gi", "queue": "gpus", "priority_class": "high",
    "image_pull_secrets": ["key"], "training_runtime": "ours", "train_image": "registry/train:1", "job_storage": "/mnt/all",
    "start_timeout_minutes": 3.0, "job_timeout_minutes": 60.0, "max_restarts": 1, "attempts": 2, "attempt_pause_seconds": 1.5,
    "perturbation_start": 0.25, "perturbation_steps": 2, "perturbation_init_std": 0.01, "perturbation_init_norm": 0.4,
    "perturbation_step_size": 0.2, "perturbation_radius": 0.5, "perturbation_norm": "linf", "perturbation_scope": "token",
    "perturbation_divergence": "mse", "perturbation_weight": 2.0, "perturbation_direction": "label",
    "perturbation_dropout": "shared", "perturbation_interval": 3, "perturbation_fraction": 0.5,
    "robustness_rows": 20, "evaluation_precision": "bf16", "predict_test": False,
    "name": "mine", "alias": "newest", "champion_margin": 0.02, "champion_min_score": 0.5,
    "champion_rule": "better", "champion_reason": "it is faster",
    "champion_min_robustness": 0.4, "auto_promote": False, "experiment": "second", "tracking_uri": "http://mlflow:5000",
}  # fmt: skip
"""Of every parameter another valid value."""
PIPELINES = {pipeline.name: pipeline for pipeline in (adapt, adapt_in_parts, suite)}
OF_PARTS, OF_LOOPS = {"num_parts"}, {"tasks", "seeds"}
APPS = {"local": local.app, "submit": submit.app}


def using(name: str) -> set[str]:
    """The stages whose settings have it."""
    users = {stage: cli.names_of(*kinds, OF_METHODS if stage == "train" else ()) for stage, kinds in STAGES.items()}
    return {stage for stage, names in users.items() if name in names}


def written(**given: Any) -> dict[str, dict[str, Any]]:
    return {stage: json.loads(text) for stage, text in texts_of(check({**BASE, **given})).items()}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


# --- the names ---


SINCE = (
    "evaluation_precision",
    "predict_test",
    "recipe",
    "champion_rule",
    "champion_reason",
    "attempts",
    "attempt_pause_seconds",
    "decay_vectors",
    "adam_epsilon",
    "beta1",
    "beta2",
    "sophia_rho",
    "hessian_interval",
    "perturbation_init",
    "depth",
    "depth_keep",
    "depth_rate",
)


def test_the_pipeline_takes_all_that_it_took_and_a_recipe() -> None:
    assert set(KNOWN) == {*BEFORE, *SINCE} == set(OTHER)
    for name, value in OTHER.items():
        assert value not in (parameters.default(name), BASE.get(name)), name


def test_the_form_is_short_and_the_rest_goes_into_overrides() -> None:
    assert len(parameters.form()) <= 20
    assert set(parameters.form()) - {"overrides"} < set(KNOWN)
    assert tuple(inspect.signature(adapt.pipeline_func).parameters) == parameters.form()
    assert set(inspect.signature(adapt_in_parts.pipeline_func).parameters) == {*parameters.form(), *OF_PARTS}
    assert set(inspect.signature(suite.pipeline_func).parameters) == set(parameters.form()) - {*OF_ONE_RUN} | OF_LOOPS


# --- the values ---


@pytest.mark.parametrize("where", ["by itself", "overrides"])
@pytest.mark.parametrize("name", KNOWN)
def test_a_parameter_reaches_exactly_the_stages_that_use_it(name: str, where: str) -> None:
    value, before = OTHER[name], written()
    base = {other: it for other, it in BASE.items() if other != name}
    given = {name: value} if where == "by itself" else {"overrides": {name: value}}
    after = {stage: json.loads(text) for stage, text in texts_of(check({**base, **given})).items()}
    changed = {stage: differing(before[stage], after[stage]) for stage in STAGES}
    users = using(name) - ({"tokenize"} if name in ("seed", "num_sample_rows") else set())  # which are the sample's
    assert {stage: names for stage, names in changed.items() if names} == {stage: {name} for stage in users}
    assert all(after[stage][name] == value for stage in users)
    assert users or name == "num_sample_rows"


def test_the_sample_is_of_its_seed_and_its_size() -> None:
    before = written(source="sample")
    for name, users in (("seed", {"tokenize", "train"}), ("num_sample_rows", {"tokenize"})):
        after = written(source="sample", **{name: OTHER[name]})
        changed = {stage: differing(before[stage], after[stage]) for stage in STAGES}
        assert {stage: names for stage, names in changed.items() if names} == {stage: {name} for stage in users}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("recipe", ["", "scala-every-update"])
def test_training_does_with_its_text_what_it_does_with_options(name: str, recipe: str) -> None:
    """Where the number of rows is known, the text has what the recipe says filled in."""
    options = {"recipe": recipe, "model": "tiny", name: OTHER[name]}
    known = {it: value for it, value in options.items() if it in using_of_training()}
    for source, num_rows in (("sample", 300), ("/data/glue", 300), ("/data/glue", 30_000)):
        text = written(**{**options, "source": source, "num_sample_rows": 300})["train"]
        told = {it: value for it, value in text.items() if it in using_of_training()}
        assert settings.settle(told, num_rows) == settings.settle(known, num_rows)


def using_of_training() -> tuple[str, ...]:
    return cli.names_of(settings.Training, OF_METHODS)


# --- the command lines ---


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_parameter_is_an_option_of_its_own_name(app: str, pipeline: str) -> None:
    needed = {"suite": ["--tasks", "rte"], "adapt-in-parts": ["--num-parts", "2"]}.get(pipeline, [])
    for name in KNOWN:
        own = {} if pipeline == "suite" else {"task": "sst2", "label_column": "verdict"}
        beside = [word for it, value in own.items() if it != name for word in option(it, value)]
        tokens = [pipeline, *needed, *beside, *option(name, OTHER[name])]
        if pipeline == "suite" and name in OF_ONE_RUN:
            with pytest.raises(cyclopts.CycloptsError, match=f"--{name.replace('_', '-')}"):
                parsed(APPS[app], tokens)
            continue
        asked = parsed(APPS[app], tokens)
        assert asked
        arguments = arguments_of(PIPELINES[pipeline], asked[1])
        assert set(arguments) <= set(inspect.signature(PIPELINES[pipeline].pipeline_func).parameters)
        assert {**arguments.pop("overrides", {}), **arguments}[name] == OTHER[name]


def option(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", *(value if isinstance(value, list) else [str(value)])]


@pytest.mark.parametrize("app", APPS)
def test_overrides_are_an_option_too(app: str) -> None:
    asked = parsed(APPS[app], ["adapt", "--task", "sst2", "--overrides", '{"weight_decay": 0.1}', "--dropout", "0.2"])
    assert asked
    assert arguments_of(adapt, asked[1]) == {"task": "sst2", "overrides": {"weight_decay": 0.1, "dropout": 0.2}}


# --- signatures, defaults, descriptions ---


def stage_function(stage: str) -> Any:
    return getattr(importlib.import_module(f"components.{stage}.stage"), stage)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_takes_what_its_settings_have(stage: str) -> None:
    own = {"data_dir", "model_dir", "evaluation_dir", "output_dir", "checkpoint_dir", "model_uri", "settings"}
    in_parts, of_the_store = {"part", "num_parts", "source_files"}, {"source_state", "model_state"}
    offered = set(inspect.signature(stage_function(stage)).parameters) - own - in_parts - of_the_store
    assert offered == {name for name in KNOWN if stage in using(name)} - {"experiment", "tracking_uri"} - of_its_launch(stage)


def of_its_launch(stage: str) -> set[str]:
    from components.launch.placement import Placement

    return set(cli.names_of(Placement)) if stage == "train" else set()


def test_every_default_is_the_tables() -> None:
    for function in (*(it.pipeline_func for it in (*PIPELINES.values(), doctor)), *map(stage_function, STAGES)):
        for name, parameter in inspect.signature(function).parameters.items():
            told = parameter.default
            may_lack = told is None and "settings" in inspect.signature(function).parameters  # which then has it
            must_be_given = (function, name) == (adapt_in_parts.pipeline_func, "num_parts")
            assert told is parameters.default(name) or may_lack or must_be_given, f"{function.__name__}: {name}"


@pytest.mark.parametrize("name", [*PIPELINES, "doctor"])
def test_every_parameter_is_described_for_the_kubeflow_ui(build: Path, name: str) -> None:
    spec = next(iter(yaml.safe_load_all((build / f"{name}.yaml").read_text())))
    offered = inspect.signature({**PIPELINES, "doctor": doctor}[name].pipeline_func).parameters
    described = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: " ".join(given["description"].split()) for name, given in described.items()} == {
        name: parameters.descriptions()[name] for name in offered
    }


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the local runner runs."""
    return {name: compiled_spec(it, tmp_path_factory.mktemp(name)) for name, it in PIPELINES.items()}


def test_every_input_of_a_step_is_described(specs: dict[str, dict[str, Any]]) -> None:
    for spec in specs.values():
        for name, component in spec["components"].items():
            for kind in ("parameters", "artifacts") if "executorLabel" in component else ():
                for given, it in component["inputDefinitions"].get(kind, {}).items():
                    if it.get("parameterType") != "TASK_CONFIG":  # which KFP fills in, and no one sees
                        assert it.get("description"), f"{name}: {given}"


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_each_stage_gets_the_settings_that_resolve_wrote_for_it(specs: dict[str, dict[str, Any]], pipeline: str) -> None:
    spec = specs[pipeline]
    dags = [spec["root"]["dag"], *(part["dag"] for part in spec["components"].values() if "dag" in part)]
    for stage in STAGES:
        names = {"tokenize": ("tokenize-in-parts",)}.get(stage, ()) if pipeline == "adapt-in-parts" else ()
        (task,) = (dag["tasks"][name] for dag in dags for name in names or (stage,) if name in dag["tasks"])
        given = task["inputs"]["parameters"]["settings"]
        if "taskOutputParameter" in given:
            assert given["taskOutputParameter"] == {"outputParameterKey": stage, "producerTask": "resolve"}
        elif pipeline == "suite":
            assert given["componentInputParameter"] == f"pipelinechannel--{stage}"
            handed = spec["root"]["dag"]["tasks"]["all-runs"]["inputs"]["parameters"][stage]
            assert handed["taskOutputParameter"] == {"outputParameterKey": stage, "producerTask": "resolve"}
        else:
            assert given["componentInputParameter"] == f"pipelinechannel--resolve-{stage}"


def test_artifacts_have_their_types(specs: dict[str, dict[str, Any]]) -> None:
    types = {
        name: given["artifactType"]["schemaTitle"]
        for stage in STAGES
        for name, given in specs["adapt"]["components"][f"comp-{stage}"]
        .get("outputDefinitions", {})
        .get("artifacts", {})
        .items()
    }
    assert types == {
        "dataset": "system.Dataset",
        "trained": "system.Model",
        "logs": "system.Artifact",
        "evaluation": "system.Artifact",
        "metrics": "system.Metrics",
        "confusion": "system.ClassificationMetrics",
        "summary": "system.Markdown",
        "report": "system.HTML",
        "card": "system.Markdown",
    }
