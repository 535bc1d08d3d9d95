"""The first step: what it refuses, and in whose words; and what it fills in and ties down."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from servers import BUCKET, s3_server
from support import ROOT, run_module

from components import cli, parameters
from components.artifacts.provenance import Tracking
from components.errors import UserError
from components.resolve.stage import KNOWN, STAGES, check, every_run, pinned, texts_of
from components.resolve.step import resolve_step
from components.storage import transfer
from components.tokenize.stage import tokenize
from components.train.settings import OF_METHODS
from components.train.stage import train

BASE: dict[str, Any] = {"task": "sst2", "source": "sample", "model": "tiny"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def settled(**given: Any) -> dict[str, dict[str, Any]]:
    return {stage: json.loads(text) for stage, text in texts_of(check({**BASE, **given})).items()}


# --- what is refused ---


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"overrides": {"weight_decya": 0.1}}, "overrides has 'weight_decya', .* did you mean weight_decay?"),
        ({"learning_rat": 0.1}, "the pipeline has 'learning_rat', .* did you mean learning_rate?"),
        ({"overrides": {"xyzzy": 1}}, "overrides has 'xyzzy', which is no parameter here: it takes task, source, "),
        ({"overrides": {"overrides": {}}}, "overrides has 'overrides'"),
        ({"num_epochs": "3"}, "num_epochs is '3': give a number"),
        ({"num_epochs": True}, "num_epochs is True: give a number"),
        ({"num_updates": 2.5}, "num_updates is 2.5: give a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: give a number"),
        ({"compile": 1}, "compile is 1: give true or false"),
        ({"text_columns": "sentence"}, "text_columns is 'sentence': give a list"),
        ({"text_columns": [1]}, "text_columns is 1: give a text"),
        ({"overrides": [1]}, r"overrides is \[1\]: give an object"),
        ({"overrides": {"dropout": 1}}, "dropout is 1.0: give 0 or more, below 1"),
        ({"num_epochs": -1}, "num_epochs is -1.0: give 0 or more"),
        ({"max_length": 4}, "max_length is 4: give 8 or more"),
        ({"overrides": {"warmup_ratio": 1.5}}, "warmup_ratio is 1.5: give 0 to 1"),
        ({"overrides": {"perturbation_fraction": 0}}, "perturbation_fraction is 0.0: give above 0, at most 1"),
        ({"overrides": {"champion_margin": 2}}, "champion_margin is 2.0: give "),
        ({"cpu_per_worker": "many"}, "cpu_per_worker is 'many': give a quantity as Kubernetes has them"),
        ({"overrides": {"method": "sacla"}}, "method is 'sacla': give one of plain, scala"),
        ({"recipe": "plane"}, "recipe is 'plane': give one of plain, few-rows"),
        ({"overrides": {"perturbation_norm": "l1"}}, "perturbation_norm is 'l1': give one of l2, linf"),
        ({"task": "sst3"}, "unknown task 'sst3': choose one of cola, sst2"),
        ({"text_columns": ["text"]}, "--text-columns goes with --label-column"),
        ({"name": "a/b"}, "name 'a/b', alias 'challenger'"),
        ({"overrides": {"alias": "champion"}}, "alias 'champion'"),
        ({"overrides": {"min_workers": 3}}, "min_workers is 3, num_workers 1: give at most as many"),
        ({"launcher": "torchrun", "num_workers": 2}, "num_workers is 2: torchrun has one"),
        ({"launcher": "trainjob", "overrides": {"priority_class": "high"}}, "priority_class needs launcher=pytorchjob"),
        ({"recipe": "scala", "overrides": {"perturbation_init_std": 0}}, "perturbation_init_std"),
        ({"num_epochs": 2, "overrides": {"num_epochs": 3}}, "num_epochs is given twice, by itself and in overrides"),
        ({"overrides": {"max_length": 64}, "max_length": 128}, "max_length is given twice"),
        ({"tasks": []}, "tasks is empty: give at least one"),
        ({"tasks": ["rte"], "seeds": [1, 1.0]}, "seeds has 1 more than once"),
        ({"tasks": ["rte"], "overrides": {"name": "mine"}}, "overrides has 'name'"),
        ({"tasks": ["rte"], "overrides": {"seed": 3}}, "overrides has 'seed'"),
        ({"tasks": ["rte"], "overrides": {"text_columns": ["a"]}}, "overrides has 'text_columns'"),
    ],
)
def test_what_cannot_be_run_is_refused_by_the_parameters_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check({**({} if "tasks" in given else BASE), **given})


def test_a_task_must_be_given() -> None:
    with pytest.raises(UserError, match="task is not given: give --task"):
        check({"source": "sample"})


def test_the_same_in_both_places_is_given_once() -> None:
    assert check({**BASE, "max_length": 64, "overrides": {"max_length": 64.0}})["max_length"] == 64


def test_whole_numbers_that_json_wrote_with_a_fraction_are_whole_again() -> None:
    told = check({**BASE, "seed": 3.0, "max_length": 64.0, "overrides": {"num_updates": 7.0, "num_epochs": 2, "dropout": 0}})
    assert {name: repr(told[name]) for name in ("seed", "max_length", "num_updates", "num_epochs", "dropout")} == {
        "seed": "3",
        "max_length": "64",
        "num_updates": "7",
        "num_epochs": "2.0",
        "dropout": "0.0",
    }
    assert every_run(check({"tasks": ["rte"], "seeds": [1.0, 2.0]})) == [
        {"task": "rte", "seed": 1},
        {"task": "rte", "seed": 2},
    ]


def test_the_empty_value_that_a_default_is_is_none() -> None:
    empty = {"num_epochs": 0, "learning_rate": 0.0, "recipe": "", "text_columns": [], "cpu_per_worker": "", "overrides": {}}
    assert check({**BASE, **empty}) == check(BASE) == BASE
    assert check({**BASE, "perturbation_radius": 0})["perturbation_radius"] == 0  # whose default is none


WRONG: Mapping[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"learning_rte": 0.1}, "Did you mean --learning-rate?"),
    "type": ({"num_epochs": "many"}, "num_epochs|--num-epochs"),
    "range": ({"dropout": 1.0}, "dropout is 1.0: give 0 or more, below 1"),
    "together": ({"min_workers": 3}, "min_workers is 3, num_workers 1: give at most as many"),
    "missing": ({"task": None}, "task is not given|--task"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("module", ["pipelines.local", "pipelines.submit", "components.resolve"])
def test_every_command_refuses_it_with_code_2_and_one_line(tmp_path: Path, module: str, wrong: str) -> None:
    changes, named = WRONG[wrong]
    given = {name: value for name, value in {**BASE, **changes}.items() if value is not None}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    first = [] if module == "components.resolve" else ["adapt"]
    where = ["--runs-dir", str(tmp_path / "runs")] if module == "pipelines.local" else []
    done = run_module(module, *first, *flags, *where, KF_PIPELINES_ENDPOINT="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert line.startswith("error: ")
    assert any(each in line for each in named.split("|")), line
    assert list(tmp_path.iterdir()) == []


def test_what_is_given_twice_is_refused_by_the_commands_too() -> None:
    for module, first in (("pipelines.local", ["adapt"]), ("components.resolve", [])):
        done = run_module(module, *first, *flags_of(BASE), "--num-epochs", 2, "--overrides", '{"num_epochs": 3}')
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr == "error: num_epochs is given twice, by itself and in overrides: give it once\n"


def flags_of(given: Mapping[str, Any]) -> list[str]:
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.mark.parametrize("stage", ["tokenize", "train", "evaluate"])
def test_a_stage_refuses_settings_that_are_not_whole(
    tmp_path: Path, stage: str, tokenized: Callable[[str], Path], trained: Callable[[str], Path]
) -> None:
    folders = {
        "tokenize": [],
        "train": ["--data-dir", tokenized("sst2")],
        "evaluate": ["--model-dir", trained("sst2"), "--data-dir", tokenized("sst2")],
    }[stage]
    whole = json.loads(texts_of(check(BASE))[stage])
    first = {"tokenize": "max_length", "train": "num_epochs", "evaluate": "robustness_rows"}[stage]
    for settings, message in (
        ({**whole, f"{first}s": 1}, f"settings has '{first}s', which is no parameter here: did you mean {first}"),
        ({name: value for name, value in whole.items() if name != first}, f"settings has no {first}"),
        ({**whole, first: "many"}, f"{first} is 'many': give a"),
    ):
        arguments = ["--settings", json.dumps(settings), *folders, "--output-dir", tmp_path / "out"]
        done = run_module(f"components.{stage}", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.startswith(f"error: {message}"), done.stderr
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "settings is no JSON"),
        ("[1]", r"settings is '\[1\]': give a JSON object"),
        ('{"task": "rte", "max_length": 64}', "settings has no source, model, "),
    ],
)
def test_a_text_that_is_no_settings_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tokenize(settings=text, output_dir=tmp_path / "data")
    whole = json.loads(texts_of(check(BASE))["tokenize"])
    with pytest.raises(UserError, match="max_length is 4: give 8 or more"):
        tokenize(settings=json.dumps({**whole, "max_length": 4}), output_dir=tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_settings_and_options_do_not_go_together(tmp_path: Path) -> None:
    text = texts_of(check(BASE))["tokenize"]
    with pytest.raises(UserError, match="settings and max_length are both given: give one or the other"):
        tokenize(settings=text, max_length=64, output_dir=tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


# --- what is written ---


def test_every_stage_takes_its_text(tmp_path: Path) -> None:
    """From text to model by settings alone, to the same bytes as by options."""
    options: dict[str, Any] = {
        "max_length": 32,
        "num_sample_rows": 60,
        "num_updates": 2,
        "method": "pgd",
        "perturbation_radius": 0.2,
    }
    texts = texts_of(check({**BASE, "overrides": options}))
    for stage, kinds in STAGES.items():
        cli.read(texts[stage], *kinds, optional=OF_METHODS if stage == "train" else ())
    of_data = {name: options[name] for name in ("max_length", "num_sample_rows")}
    of_training = {name: value for name, value in options.items() if name not in of_data}
    by_options = tokenize(**BASE, **of_data, output_dir=tmp_path / "data")
    assert tokenize(settings=texts["tokenize"], output_dir=tmp_path / "data-2")["digest"] == by_options["digest"]
    by_options = train(data_dir=tmp_path / "data", model="tiny", **of_training, output_dir=tmp_path / "model")
    by_settings = train(data_dir=tmp_path / "data", settings=texts["train"], output_dir=tmp_path / "model-2")
    assert by_settings["parameters"] == by_options["parameters"]
    assert by_settings["files"]["model.safetensors"] == by_options["files"]["model.safetensors"]


def test_the_command_prints_what_the_component_hands_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "opened by Kubeflow")
    done = run_module("components.resolve", *flags_of(BASE), "--num-updates", 7)
    assert done.returncode == 0, done.stderr
    texts = dict(line.split(": ", 1) for line in done.stdout.splitlines() if line.partition(":")[2].startswith(" {"))
    assert texts == texts_of(pinned(check({**BASE, "num_updates": 7})))
    assert list(texts) == list(STAGES)
    form = {name: parameters.default(name) for name in parameters.form()} | BASE | {"overrides": {"num_updates": 7.0}}
    handed = dict(zip(STAGES, resolve_step({**form, "tasks": [], "seeds": []}, ["key"]), strict=False))
    assert json.loads(handed["train"]) == json.loads(texts["train"]) | {"image_pull_secrets": ["key"]}
    assert all(handed[stage] == texts[stage] for stage in STAGES if stage != "train")
    capsys.readouterr()


@pytest.mark.parametrize(("tasks", "seeds", "message"), [([], [0], "tasks is empty"), (["rte"], [], "seeds is empty")])
def test_a_suite_of_nothing_is_refused_for_that(
    tasks: list[str], seeds: list[int], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    form = {name: parameters.default(name) for name in parameters.form()} | {"task": "", "source": "sample"}
    with pytest.raises(SystemExit) as stopped:
        resolve_step({**form, "tasks": tasks, "seeds": seeds}, [])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_on_kubeflow_a_suite_larger_than_a_workflow_is_refused_before_anything_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    form = {name: parameters.default(name) for name in parameters.form()} | {"task": "", "source": "sample", "model": "tiny"}
    monkeypatch.setenv("KFP_POD_NAME", "suite-x1-system-container-impl-1")
    with pytest.raises(SystemExit) as stopped:
        resolve_step({**form, "tasks": ["rte", "cola", "mnli"], "seeds": [0.0]}, [])
    assert stopped.value.code == 2
    assert "tasks and seeds make 3 runs, and Kubeflow holds 2 of them in one" in capsys.readouterr().err


def test_a_suites_settings_serve_all_its_tasks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What depends on a task's rows is left to the training; what of a task or a seed remains is of the first run."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "opened by Kubeflow")
    form = {name: parameters.default(name) for name in parameters.form()} | {"task": "", "model": "tiny"}
    form["source"] = f"hub:nyu-mll/glue@{COMMIT}"
    texts = dict(zip(STAGES, resolve_step({**form, "tasks": ["rte", "mnli"], "seeds": [1.0, 2.0]}, []), strict=False))
    told = {stage: json.loads(text) for stage, text in texts.items()}
    assert told["tokenize"]["task"] == "rte"
    assert told["train"]["recipe"] == ""
    assert told["train"]["num_epochs"] == told["train"]["global_batch_size"] == 0
    assert told["train"]["seed"] == 1
    assert not [stage for stage in ("evaluate", "register", "promote") if {"task", "seed"} & told[stage].keys()]
    capsys.readouterr()


def test_the_recipe_is_filled_in_where_the_number_of_rows_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    for given, recipe in (
        ({"num_sample_rows": 300}, "few-rows"),
        ({"num_sample_rows": 10_000}, "plain"),
        ({"task": "rte", "source": "hub"}, "few-rows"),
        ({"task": "mnli", "source": f"hub:nyu-mll/glue@{COMMIT}"}, "plain"),
    ):
        told = settled(**given)["train"]
        assert told["recipe"] == ""  # by which the training says why
        few = recipe == "few-rows"
        assert (told["num_epochs"], told["global_batch_size"], told["learning_rate"]) == (
            (10, 16, 2e-5) if few else (3, 32, 5e-5)
        )
        assert (told["method"], told["optimizer"]) == ("plain", "adamw")
        assert f"train: recipe {recipe} (" in capsys.readouterr().out
    for source in ("/data/glue", "s3://bucket/glue", f"hub:owner/glue@{COMMIT}", "hub"):
        own = {"text_columns": ["text"], "label_column": "label"} if source == "hub" else {}
        told = settled(task="mnli", source=source, **own)["train"]
        assert [told[name] for name in ("recipe", "method", "num_epochs", "global_batch_size")] == ["", "", 0, 0]
        assert not set(OF_METHODS) & told.keys()
        assert capsys.readouterr().out == (
            "train: what follows from the number of rows the run says, and precision and micro-batches\n"
        )


def test_what_is_given_stands_and_a_method_that_is_named_brings_its_own_defaults() -> None:
    told = settled(recipe="scala-every-update", num_epochs=2, learning_rate=3e-5, num_sample_rows=8000)["train"]
    assert (told["method"], told["recipe"], told["num_epochs"]) == ("scala", "scala-every-update", 2)
    assert (told["learning_rate"], told["global_batch_size"]) == (3e-5, 128)
    assert told["perturbation_start"] == 0
    told = settled(method="rdrop", perturbation_weight=3)["train"]
    assert {name: told[name] for name in OF_METHODS if name in told} == {"perturbation_weight": 3}


# --- names that may come to mean something else ---


@pytest.fixture
def hub(tmp_path: Path) -> dict[str, Any]:
    """The environment of who has one model of the hub in the cache, and no network."""
    folder = tmp_path / "hub" / "models--owner--name"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    (folder / "snapshots" / COMMIT / "config.json").write_text("{}")
    return {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}


def test_a_model_of_the_hub_is_tied_to_its_commit(hub: dict[str, Any]) -> None:
    for name in ("owner/name", f"owner/name@{COMMIT}"):
        done = run_module("components.resolve", "--task", "rte", "--source", "sample", "--model", name, **hub)
        assert done.returncode == 0, done.stderr
        texts = dict(line.split(": ", 1) for line in done.stdout.splitlines() if line.partition(":")[2].startswith(" {"))
        assert {json.loads(texts[stage])["model"] for stage in ("tokenize", "train")} == {f"owner/name@{COMMIT}"}


def test_a_model_that_the_hub_has_not_is_refused(hub: dict[str, Any]) -> None:
    done = run_module("components.resolve", "--task", "rte", "--source", "sample", "--model", "owner/other", **hub)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: cannot load model 'owner/other'")
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A source and a folder with a model in a store; yields the URI above both."""
    folder = tmp_path_factory.mktemp("store")
    with s3_server(folder / "s3") as environment, pytest.MonkeyPatch.context() as patched:
        for name, value in {**environment, "HF_HOME": str(folder / "fetched")}.items():
            patched.setenv(name, value)
        patched.delenv("AWS_CA_BUNDLE", raising=False)
        rows = "".join(f"good {row}\t1\nbad {row}\t0\n" for row in range(40))
        for name, content in (("own.tsv", f"text\tlabel\n{rows}"), ("base/config.json", "{}")):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(content)
        transfer.store(folder / "own.tsv", f"s3://{BUCKET}/own.tsv")
        transfer.store(folder / "base", f"s3://{BUCKET}/base")
        yield f"s3://{BUCKET}"


def test_other_bytes_behind_a_local_source_are_other_settings_of_tokenizing(tmp_path: Path) -> None:
    """By which Kubeflow's cache knows that it is not the same step."""

    def rows(word: str) -> str:
        return "text\tlabel\n" + "".join(f"{word} {row}\t1\nbad {row}\t0\n" for row in range(40))

    source = tmp_path / "own.tsv"
    source.write_text(rows("good"))
    given = {**BASE, "source": str(source), "task": "mine", "text_columns": ["text"], "label_column": "label"}
    first, again = (texts_of(pinned(check(given))) for _ in range(2))
    assert first == again
    tokenize(settings=first["tokenize"], output_dir=tmp_path / "data")
    source.write_text(rows("evil"))  # as long as before
    other = texts_of(pinned(check(given)))
    assert other["tokenize"] != first["tokenize"]
    assert {stage for stage in first if other[stage] != first[stage]} == {"tokenize"}
    with pytest.raises(UserError, match=r"own\.tsv has changed since this run was resolved"):
        tokenize(settings=first["tokenize"], output_dir=tmp_path / "other")
    folder = {**given, "source": str(tmp_path / "folder")}
    (tmp_path / "folder").mkdir()
    states = []
    for text in ("one", "two"):
        (tmp_path / "folder" / "train.csv").write_text(text)
        states.append(pinned(check(folder))["source_state"])
        (tmp_path / "folder" / ".train.csv.partial").write_text(text)
        assert pinned(check(folder))["source_state"] == states[-1]
    assert len(set(states)) == 2


def test_the_store_s_state_is_part_of_the_settings_of_tokenizing(store: str, tmp_path: Path) -> None:
    given = {**BASE, "source": f"{store}/mine", "task": "mine", "text_columns": ["text"], "label_column": "label"}
    told = []
    for text in ("good", "evil"):
        (tmp_path / "train.csv").write_text(f"text,label\n{text},1\n")
        transfer.store(tmp_path / "train.csv", f"{store}/mine/train.csv")
        transfer.state_of.cache_clear()  # another run is another process
        told.append(texts_of(pinned(check(given)))["tokenize"])
    assert told[0] != told[1]


def test_what_is_in_a_store_is_tied_to_its_state_and_refused_in_another(store: str, tmp_path: Path) -> None:
    own = {"source": f"{store}/own.tsv", "text_columns": ["text"], "label_column": "label"}
    texts = texts_of(pinned(check({**BASE, **own, "task": "mine"})))
    told = json.loads(texts["tokenize"])
    assert told["source_state"] == transfer.state_of(f"{store}/own.tsv") != ""
    assert told["model_state"] == ""
    tokenize(settings=texts["tokenize"], output_dir=tmp_path / "data")
    model = {stage: json.loads(text) for stage, text in texts_of(pinned({**BASE, "model": f"{store}/base"})).items()}
    assert model["train"]["model_state"] == model["tokenize"]["model_state"] == transfer.state_of(f"{store}/base")

    (tmp_path / "own.tsv").write_text("text\tlabel\n" + "worse\t1\nbetter\t0\n" * 30)
    transfer.store(tmp_path / "own.tsv", f"{store}/own.tsv")
    done = run_module("components.tokenize", "--settings", texts["tokenize"], "--output-dir", tmp_path / "data-2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {store}/own.tsv has changed since this run was resolved: submit it again\n"
    assert not (tmp_path / "data-2").exists()
    data: dict[str, Any] = {"data_dir": tmp_path / "data", "settings": json.dumps({**model["train"], "model_state": "another"})}
    with pytest.raises(UserError, match="base has changed since this run was resolved"):
        train(**data, output_dir=tmp_path / "model")
    assert not (tmp_path / "model").exists()


# --- how long it takes ---


def test_it_is_quick_and_loads_nothing_slow(hub: dict[str, Any]) -> None:
    given = {"task": "rte", "source": "sample", "model": "owner/name", "overrides": {"method": "scala"}}
    code = f"""
import sys
from components.resolve.component import resolve
from components.resolve.step import resolve_step
from components import parameters
resolve_step({{name: parameters.default(name) for name in parameters.form()}} | {given!r} | dict(tasks=[], seeds=[]), [])
print(*sorted({{name.partition('.')[0] for name in sys.modules}}))
"""
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, **hub, "MLFLOW_RUN_ID": "opened by Kubeflow"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        seconds.append(time.monotonic() - started)
        assert done.returncode == 0, done.stderr
        assert not set(done.stdout.splitlines()[-1].split()) & {"torch", "transformers", "mlflow", "sklearn", "datasets"}
    assert min(seconds) < 3, seconds


def test_only_the_settings_of_the_store_are_not_for_people_to_give() -> None:
    of_stages = cli.names_of(*(kind for kinds in STAGES.values() for kind in kinds), OF_METHODS)
    assert set(of_stages) - set(KNOWN) == {"source_state", "model_state"}
    assert set(cli.names_of(Tracking)) < set(KNOWN)
    with pytest.raises(UserError, match="overrides has 'source_state'"):
        check({**BASE, "overrides": {"source_state": "x"}})
