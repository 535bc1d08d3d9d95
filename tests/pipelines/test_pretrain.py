"""pretrain: what its parameters reach, what it refuses, and a whole run through the command a user types."""

import contextlib
import inspect
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import ROOT, compiled_spec, run_module

from components import cli, parameters
from components.artifacts.provenance import Tracking
from components.corpus.settings import Corpus
from components.errors import UserError
from components.launch.placement import Placement
from components.pretrain.settings import OF_TRAINING, Pretraining, as_given, settle_pretraining
from components.recipes import RECIPES
from components.resolve import pretraining
from components.resolve.pretraining import KNOWN, OF_ADAPTATION, STAGES, check, texts_of
from components.suite.step import runs_step
from components.train.settings import OF_METHODS
from pipelines import local, submit
from pipelines.command import arguments_of, parsed
from pipelines.pretrain import pretrain

BASE: dict[str, Any] = {"source": "/data/text", "tasks": ["rte"], "seeds": [0], "task_source": "sample"}
OTHER: Mapping[str, Any] = {
    "source": "/data/other", "text_column": "body", "initial_model": "minilm", "vocabulary": "minilm", "vocabulary_size": 100,
    "lowercase": False, "architecture": "roberta-prelayernorm", "layers": 4, "hidden": 256, "heads": 3, "intermediate": 512,
    "sequence_length": 256, "mask_probability": 0.3, "whole_words": True, "learning_rate": 1e-4, "dropout": 0.2,
    "num_updates": 7, "seed": 3, "recipe": "scala", "method": "rdrop", "perturbation_weight": 2.0, "num_processes": 2,
    "experiment": "second", "num_workers": 2,
}  # fmt: skip
USERS = {
    "corpus": cli.names_of(Corpus, Tracking),
    "pretrain": cli.names_of(Pretraining, OF_TRAINING, OF_METHODS, Placement, Tracking),
    "train": cli.names_of(Placement, Tracking),
    **dict.fromkeys(("tokenize", "evaluate", "register", "promote"), cli.names_of(Tracking)),
}


def written(**given: Any) -> dict[str, dict[str, Any]]:
    return {stage: json.loads(text) for stage, text in texts_of(check({**BASE, **given})).items()}


@pytest.mark.parametrize("name", OTHER)
def test_a_parameter_reaches_exactly_the_stages_that_use_it(name: str) -> None:
    """The adaptation has its own learning rate, seeds and so on; where the ranks run is said once for both."""
    before, after = written(), written(**{name: OTHER[name]})
    users = {stage for stage, names in USERS.items() if name in names}
    changed = {stage for stage in STAGES if before[stage] != after[stage]}
    assert changed == users
    assert all(after[stage][name] == OTHER[name] for stage in users)


def test_what_adaptation_says_reaches_the_suite_alone() -> None:
    before, after = written(), written(adaptation={"learning_rate": 3e-4, "robustness_rows": 9, "num_workers": 3})
    assert {stage for stage in STAGES if before[stage] != after[stage]} == {"train", "evaluate"}
    assert (after["train"]["learning_rate"], after["train"]["num_workers"], after["evaluate"]["robustness_rows"]) == (
        3e-4,
        3,
        9,
    )


def test_every_run_of_the_suite_is_told_the_model() -> None:
    (run,) = runs_step(["rte"], [1.0], "hub", "/runs/pretrained")
    of_all = written()
    for stage, key in (("tokenize", "data"), ("train", "training")):
        assert of_all[stage]["model"] == pretraining.PRETRAINED
        assert json.loads(cli.with_changes(json.dumps(of_all[stage]), run[key]))["model"] == "/runs/pretrained"


def test_the_adapted_model_is_asked_for_no_more_tokens_than_it_takes() -> None:
    assert written(sequence_length=64)["tokenize"]["max_length"] == 64
    assert written(sequence_length=512)["tokenize"]["max_length"] == parameters.max_length


@pytest.mark.parametrize("given", [{}, {"recipe": "scala"}, {"dropout": 0.3}, {"learning_rate": 1e-4, "layers": 3}])
def test_pretraining_does_with_its_text_what_it_does_with_options(given: dict[str, Any]) -> None:
    text = texts_of(check({**BASE, **given}))["pretrain"]
    told = {name: value for name, value in as_given(text, {}).items() if name not in cli.names_of(Placement, Tracking)}
    assert settle_pretraining(told, 9000)[1].values == settle_pretraining(given, 9000)[1].values
    assert settle_pretraining(told, 9000)[0] == settle_pretraining(given, 9000)[0]


def test_without_a_word_there_is_no_dropout() -> None:
    assert written()["pretrain"]["dropout"] == RECIPES["masked-lm"].values["dropout"] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "hub"}, "source is 'hub', which is no text"),
        ({"model": "minilm"}, "the pipeline has 'model'"),
        ({"overrides": {"layers": 3}, "layers": 2}, "layers is given twice"),
        ({"adaptation": {"model": "minilm"}}, "adaptation has 'model': the pipeline says it itself"),
        ({"adaptation": {"source": "hub"}}, "adaptation has 'source': give task_source"),
        ({"adaptation": {"learning_rat": 1}}, "has 'learning_rat', .* did you mean learning_rate?"),
        ({"adaptation": {"max_length": 256}}, "adaptation has max_length 256, but the model takes sequence_length, 128"),
        ({"adaptation": {"dropout": 1}}, r"dropout is 1.0: give 0 or more, below 1"),
        ({"tasks": ["sst3"]}, "tasks has 'sst3'"),
        ({"hidden": 100, "heads": 3}, "heads is 3, which does not divide hidden"),
        ({"learning_rate": -1}, "learning_rate is -1.0"),
    ],
)
def test_a_users_mistake_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check({**BASE, **given})


@pytest.mark.parametrize("app", [local.app, submit.app])
def test_every_parameter_is_an_option_of_its_own_name(app: Any) -> None:
    tokens = ["pretrain", "--source", "text", "--tasks", "rte,cola", "--layers", "4", "--mask-probability", "0.2"]
    asked = parsed(app, [*tokens, "--whole-words", "--adaptation", '{"learning_rate": 1e-4}'])
    assert asked
    arguments = arguments_of(pretrain, asked[1])
    assert arguments["overrides"] == {"mask_probability": 0.2, "whole_words": True}
    assert (arguments["layers"], arguments["tasks"], arguments["adaptation"]) == (4, ["rte", "cola"], {"learning_rate": 1e-4})


def test_the_pipelines_form_is_short_and_all_else_goes_into_overrides() -> None:
    offered = inspect.signature(pretrain.pipeline_func).parameters
    assert len(offered) <= 20
    assert set(offered) - {"overrides"} <= {*KNOWN, *OF_ADAPTATION}
    for name, parameter in offered.items():
        assert parameter.default is parameters.default(name), name


def test_the_suite_of_the_pipeline_is_that_of_suite(tmp_path: Path) -> None:
    spec = compiled_spec(pretrain, tmp_path)
    tasks = spec["root"]["dag"]["tasks"]
    assert set(tasks) == {"resolve-pretraining", "corpus", "pretrain", "all-runs"}
    model = tasks["all-runs"]["inputs"]["parameters"]["model"]["taskOutputParameter"]
    assert model == {"outputParameterKey": "Output", "producerTask": "pretrain"}
    for stage in ("tokenize", "train", "evaluate", "register", "promote"):
        handed = tasks["all-runs"]["inputs"]["parameters"][stage]["taskOutputParameter"]
        assert handed == {"outputParameterKey": stage, "producerTask": "resolve-pretraining"}
    assert tasks["all-runs"]["inputs"]["parameters"]["source"]["componentInputParameter"] == "task_source"


def test_a_mistake_on_the_command_line_leaves_nothing(tmp_path: Path) -> None:
    done = run_module("pipelines.local", "pretrain", "--source", "hub", "--runs-dir", tmp_path / "runs")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert not (tmp_path / "runs").exists()


# --- a whole run ---

SMALL = {
    "layers": 2, "hidden": 32, "heads": 2, "vocabulary-size": 300, "sequence-length": 48, "num-updates": 60,
    "global-batch-size": 32, "checkpoint-minutes": 0.0001, "tasks": "rte", "seeds": 0, "task-source": "sample",
    "adaptation": json.dumps({"num_sample_rows": 60, "num_epochs": 1, "robustness_rows": 0}),
}  # fmt: skip


PLACES = ("pretrain/pretrained", "for-loop-*/train/trained")


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """By SIGKILL, of all its processes at once, in the midst of pre-training; from nothing to a row of the table."""
    text = tmp_path / "text.txt"
    random = (f"the {'very ' * (number % 5)}{word} {number % 7} of {number % 11} .\n" for number in range(900) for word in "ab")
    text.write_text("".join(random))
    flags = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    arguments = ["pretrain", "--source", str(text), *flags]
    whole = run_module("pipelines.local", *arguments, "--runs-dir", tmp_path / "whole", timeout=600)
    assert whole.returncode == 0, whole.stderr
    assert "| sample-rte |" in whole.stdout
    command = [sys.executable, "-m", "pipelines.local", *arguments, "--runs-dir", str(tmp_path / "killed")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob("killed/cache/*.checkpoint/update-*")):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
    again = run_module("pipelines.local", *arguments, "--runs-dir", tmp_path / "killed", timeout=600)
    assert again.returncode == 0, again.stderr
    assert "goes on at update" in again.stdout + again.stderr
    models = [
        [next(iter((tmp_path / name).glob(f"*/*/{place}/model.safetensors"))).read_bytes() for place in PLACES]
        for name in ("whole", "killed")
    ]
    assert models[0] == models[1]
    third = run_module("pipelines.local", *arguments, "--runs-dir", tmp_path / "killed", timeout=600)
    assert third.stdout.count("cached") >= 4  # corpus, pretrain, tokenize and train: by their content
