"""What a compiled pipeline has that the local runner does without."""

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT

from components.errors import UserError
from components.image import IMAGE, SETTINGS_DIR, TRAIN_IMAGE
from components.launch.namespace import CERTIFICATES, CERTIFICATES_DIR, CONFIG, MLFLOW, MOUNTS, S3
from pipelines.adapt import adapt
from pipelines.compile import check_images, compile_all
from pipelines.resources import asked
from pipelines.suite import suite

OURS = {
    IMAGE: f"registry.example.com/adapt-stage@sha256:{'a' * 64}",
    TRAIN_IMAGE: f"registry.example.com/train@sha256:{'b' * 64}",
}
TRAINED = {"train", "pretrain", "evaluate", "register", "promote"}
SECRET_VALUE = "not-to-be-found-anywhere-4711"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    compile_all(output_dir=folder, image=OURS[IMAGE], train_image=OURS[TRAIN_IMAGE], image_pull_secrets=["registry-key"])
    return folder


def documents(build: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    spec, platform = yaml.safe_load_all((build / f"{name}.yaml").read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in (spec["root"], *spec["components"].values()):
        yield from part.get("dag", {}).get("tasks", {}).items()


@pytest.mark.parametrize("name", ["adapt", "suite"])
def test_every_step_has_its_image_by_digest_and_knows_it(build: Path, name: str) -> None:
    spec, _ = documents(build, name)
    executors = spec["deploymentSpec"]["executors"]
    assert {
        "exec-resolve",
        "exec-tokenize",
        "exec-train",
        "exec-evaluate",
        "exec-register",
        "exec-promote",
        "exec-clean-up",
    } <= set(executors)
    for executor, given in executors.items():
        image = OURS[TRAIN_IMAGE if executor.removeprefix("exec-") in TRAINED else IMAGE]
        assert given["container"]["image"] == image
        assert {"name": "IMAGE", "value": image} in given["container"]["env"]


def test_a_component_alone_has_its_image_too(build: Path) -> None:
    for path in (build / "components").iterdir():
        ((name, executor),) = yaml.safe_load(path.read_text())["deploymentSpec"]["executors"].items()
        assert executor["container"]["image"] == OURS[TRAIN_IMAGE if name.removeprefix("exec-") in TRAINED else IMAGE]


@pytest.mark.parametrize("name", ["adapt", "suite"])
def test_every_step_gets_the_settings_of_the_namespace(build: Path, name: str) -> None:
    spec, platform = documents(build, name)
    assert set(platform) == set(spec["deploymentSpec"]["executors"])
    for step in platform.values():
        maps, secrets = (
            {it[f"{kind}Name"]: (it["mountPath"], it["optional"]) for it in step[f"{kind}AsVolume"]}
            for kind in ("configMap", "secret")
        )
        assert maps == {CONFIG: (MOUNTS[CONFIG][1], True), CERTIFICATES: (CERTIFICATES_DIR, True)}
        assert secrets == {name: (MOUNTS[name][1], True) for name in (S3, MLFLOW)}
        assert all(Path(path).parent == SETTINGS_DIR for path, _ in (*maps.values(), *secrets.values()))
        assert not {"configMapAsEnv", "secretAsEnv"} & set(step)  # of which none would see that a key was added
        assert step["fieldPathAsEnv"] == [{"fieldPath": "metadata.labels['pipeline/runid']", "name": "PIPELINE_RUN_ID"}]
        assert step["emptyDirMounts"] == [{"mountPath": "/tmp", "volumeName": "tmp"}]
        assert step["podMetadata"]["labels"] == step["podMetadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
        assert step["securityContext"] == {"runAsNonRoot": True}
        assert [it["secretName"] for it in step["imagePullSecret"]] == ["registry-key"]


@pytest.mark.parametrize("pipeline", [adapt, suite])
def test_clean_up_comes_after_everything_however_it_ends(build: Path, pipeline: Any) -> None:
    spec, _ = documents(build, pipeline.name)
    last = spec["root"]["dag"]["tasks"]["clean-up"]
    assert last["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert set(spec["root"]["dag"]["tasks"]) == {"resolve", *last["dependentTasks"], "clean-up"}
    (group,) = last["dependentTasks"]
    first = spec["root"]["dag"]["tasks"][group]["dependentTasks"]
    assert first == ["resolve"]  # which leaves nothing behind
    given = last["inputs"]["parameters"]
    assert {name: it.get("componentInputParameter") for name, it in given.items()} == {
        "experiment": "experiment",
        "overrides": "overrides",
    }


ALWAYS = {"resolve", "register", "promote", "suite", "clean-up", "doctor", "verdict"}


@pytest.mark.parametrize("name", ["adapt", "adapt-in-parts", "suite", "doctor"])
def test_what_makes_the_same_of_the_same_may_be_cached_and_nothing_else(build: Path, name: str) -> None:
    spec, _ = documents(build, name)
    steps = {task: it for task, it in tasks(spec) if f"exec-{it['componentRef']['name'].removeprefix('comp-')}" in
             spec["deploymentSpec"]["executors"]}  # fmt: skip
    assert steps
    assert {task for task, it in steps.items() if "enableCache" not in it["cachingOptions"]} == ALWAYS & set(steps)
    assert {"train", "evaluate"} <= set(steps) - ALWAYS or name == "doctor"


@pytest.mark.parametrize("name", ["adapt", "adapt-in-parts", "suite"])
def test_no_step_is_cached_whose_image_may_come_to_mean_another(tmp_path: Path, name: str) -> None:
    compile_all(output_dir=tmp_path, image=OURS[IMAGE], train_image="registry.example.com/train:1")
    spec, _ = documents(tmp_path, name)
    steps = {it.removeprefix("exec-") for it in spec["deploymentSpec"]["executors"]}
    cached = {task for task, it in tasks(spec) if task in steps and "enableCache" in it["cachingOptions"]}
    in_parts = {"plan-parts", "tokenize-part", "merge-parts"}
    assert cached == {"adapt": {"tokenize"}, "adapt-in-parts": in_parts, "suite": {"tokenize", "runs"}}[name]


def test_no_step_has_an_input_that_is_another_in_each_run(build: Path) -> None:
    """Kubeflow's cache would know none of them."""
    for name in ("adapt", "adapt-in-parts", "suite"):
        spec, _ = documents(build, name)
        assert "{{$.pipeline_job" not in (build / f"{name}.yaml").read_text()
        for _, given in tasks(spec):
            assert not any("constant" in it.get("runtimeValue", {}) and "{{" in str(it["runtimeValue"]["constant"])
                           for it in given.get("inputs", {}).get("parameters", {}).values())  # fmt: skip


@pytest.mark.parametrize("name", ["adapt", "adapt-in-parts", "suite"])
def test_the_training_job_is_told_the_secrets_that_its_image_is_pulled_with(build: Path, name: str) -> None:
    spec, _ = documents(build, name)
    told = spec["components"]["comp-resolve"]["inputDefinitions"]["parameters"]["image_pull_secrets"]
    assert told["defaultValue"] == ["registry-key"]
    (task,) = (given for task, given in tasks(spec) if task == "resolve")
    assert "image_pull_secrets" not in task["inputs"]["parameters"]


@pytest.mark.parametrize("pipeline", [adapt, suite])
def test_it_is_the_same_pipeline_to_who_calls_it(build: Path, pipeline: Any) -> None:
    spec, _ = documents(build, pipeline.name)
    assert spec["pipelineInfo"]["name"] == pipeline.name
    assert spec["pipelineInfo"]["description"] == pipeline.description
    offered = spec["root"]["inputDefinitions"]["parameters"]
    signature = inspect.signature(pipeline.pipeline_func)
    assert set(offered) == set(signature.parameters)
    assert all(it["description"] for it in offered.values())
    assert {name for name, it in offered.items() if not it.get("isOptional")} == {
        name for name, it in signature.parameters.items() if it.default is inspect.Parameter.empty
    }
    assert "outputDefinitions" not in spec["root"]


@pytest.mark.parametrize(("name", "needed"), [("adapt", {"task"}), ("adapt-in-parts", {"num_parts", "task"}), ("suite", set())])
def test_a_task_is_all_that_must_be_given(build: Path, name: str, needed: set[str]) -> None:
    spec, _ = documents(build, name)
    offered = spec["root"]["inputDefinitions"]["parameters"]
    assert {it for it in offered if not offered[it].get("isOptional")} == needed


@pytest.mark.parametrize("name", ["adapt", "suite"])
def test_only_training_is_tried_again(build: Path, name: str) -> None:
    spec, _ = documents(build, name)
    again = {task: given["retryPolicy"] for task, given in tasks(spec) if "retryPolicy" in given}
    assert set(again) == {"train"}
    assert again["train"]["maxRetryCount"] == 2


@pytest.mark.parametrize("name", ["adapt", "adapt-in-parts", "suite", "doctor"])
def test_every_step_says_what_it_takes(build: Path, name: str) -> None:
    spec, _ = documents(build, name)
    for executor in spec["deploymentSpec"]["executors"].values():
        assert set(executor["container"]["resources"]) == {
            f"resource{kind}{side}" for kind in ("Cpu", "Memory") for side in ("Request", "Limit")
        }
    handed_on = spec["components"].get("comp-train", {}).get("taskConfigPassthroughs", [])
    assert "RESOURCES" not in {it["field"] for it in handed_on}  # Kubeflow would take the step's away, and limit the ranks


def test_who_compiles_says_what_a_step_takes(tmp_path: Path) -> None:
    compile_all(output_dir=tmp_path, resources=["evaluate.memory_limit=16Gi", "evaluate.gpus=1"])
    spec, _ = documents(tmp_path, "suite")
    executors = spec["deploymentSpec"]["executors"]
    changed = executors["exec-evaluate"]["container"]["resources"]
    assert changed["resourceMemoryLimit"] == "16Gi"
    assert changed["accelerator"] == {"resourceType": "nvidia.com/gpu", "resourceCount": "1"}
    assert "accelerator" not in executors["exec-register"]["container"]["resources"]
    alone = yaml.safe_load((tmp_path / "components" / "train.yaml").read_text())
    assert "resources" not in alone["deploymentSpec"]["executors"]["exec-train"]["container"]


@pytest.mark.parametrize(
    "change", ["evaluate=1", "evaluat.gpus=1", "evaluate.disk=1Gi", "evaluate.gpus=0.5", "train.cpu_limit=x"]
)
def test_what_no_step_can_take_is_refused(change: str) -> None:
    with pytest.raises(UserError, match="--resources"):
        asked([change])


def test_what_runs_here_has_none_of_it() -> None:
    for pipeline in (adapt, suite):
        assert not pipeline.platform_spec.platforms
        names = {task for part in pipeline.pipeline_spec.components.values() for task in part.dag.tasks}
        assert "clean-up" not in names | set(pipeline.pipeline_spec.root.dag.tasks)
        executors = pipeline.pipeline_spec.deployment_spec["executors"]
        assert {executor["container"]["image"] for executor in executors.values()} <= {IMAGE, TRAIN_IMAGE}
        assert not any(task.HasField("retry_policy") for task in pipeline.pipeline_spec.root.dag.tasks.values())


def test_a_secret_of_who_compiles_is_in_no_output(tmp_path: Path) -> None:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN")
    secrets = dict.fromkeys((*names, "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN"), SECRET_VALUE)
    command = [sys.executable, "pipelines/compile.py", "--output-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **secrets}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert SECRET_VALUE not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 9
    for path in written:
        assert SECRET_VALUE.encode() not in path.read_bytes()


def test_an_image_by_tag_is_warned_of_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    check_images("registry:5000/one:1", f"registry:5000/two:1@sha256:{'a' * 64}", "three")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("warning: registry:5000/one:1 and three by tag")
    check_images(*OURS.values())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("image", ["", "a b", "one@sha256:abc", "https://registry/one:1", "one:1\nname: x"])
def test_what_is_no_image_is_refused(image: str) -> None:
    with pytest.raises(UserError, match="is not an image"):
        check_images(image)
