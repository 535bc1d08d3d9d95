"""Submitting to Kubeflow and waiting for the end, against a small stand-in for its API."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_stub import Cluster
from kubeflow_stub import Kubeflow, task
from support import ROOT, heed_interrupts, run_module

from components.errors import FailedError, StageError, TryAgainError, UserError
from pipelines.compile import compile_all
from pipelines.follow import duration, reason, stage_names, stages_of
from pipelines.request import Request, check, spec_of
from pipelines.submit import app

ADAPT = ["adapt", "--task", "mnli", "--source", "hub", "--model", "bert-base-uncased"]
RED = "Error (exit code 1)"  # of every pod that failed: Kubeflow's own launcher ends with 1


def errors_in(text: str) -> list[str]:
    """Its lines but for warnings, as of images that are named by a tag."""
    return [line for line in text.splitlines() if not line.startswith("warning: ")]


def test_it_sends_what_kfp_run_create_sends(kubeflow: Kubeflow, build: Path) -> None:
    done = run_module("pipelines.submit", *ADAPT, "--num-epochs", "2", "--run-name", "first", "--experiment-name", "glue")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["run        r0", f"page       {kubeflow.endpoint}/#/runs/details/r0"]
    kfp = [str(Path(sys.executable).with_name("kfp")), "--endpoint", kubeflow.endpoint]
    parameters = ["task=mnli", "source=hub", "model=bert-base-uncased", "num_epochs=2"]
    command = [*kfp, "run", "create", "-e", "glue", "-r", "first", "-f", str(build / "adapt.yaml"), *parameters]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    ours, theirs = kubeflow.runs
    assert ours == theirs
    assert ours["runtime_config"]["parameters"] == dict(each.split("=") for each in parameters) | {"num_epochs": 2}
    assert list(kubeflow.experiments) == [("", "glue")]


def test_every_pipeline_can_be_sent(kubeflow: Kubeflow, submit: Callable[..., None]) -> None:
    submit("suite", "--source", "hub", "--model", "minilm", "--tasks", "rte,cola", "--seeds", "0")
    submit("doctor", "--num-workers", "2", "--rendezvous")
    assert [run["runtime_config"]["parameters"] for run in kubeflow.runs] == [
        {"source": "hub", "model": "minilm", "tasks": ["rte", "cola"], "seeds": [0]},
        {"num_workers": 2, "rendezvous": True},
    ]


def test_a_dry_run_asks_nobody(
    kubeflow: Kubeflow, submit: Callable[..., None], build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(*ADAPT, "--service-account", "pipeline-runner", "--dry-run")
    shown = json.loads(capsys.readouterr().out)
    assert shown["pipeline"] == {"name": "adapt", "sha256": hashlib.sha256((build / "adapt.yaml").read_bytes()).hexdigest()}
    assert shown["parameters"] == {"task": "mnli", "source": "hub", "model": "bert-base-uncased"}
    assert (shown["experiment"], shown["service_account"]) == ("adapt", "pipeline-runner")
    assert shown["run_name"].startswith("adapt-mnli-2")
    assert not kubeflow.asked


def test_where_several_share_it_the_namespace_and_the_token_are_used(
    kubeflow: Kubeflow, submit: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kubeflow.multi_user, kubeflow.token = True, "t0ken"
    (tmp_path / "token").write_text("t0ken\n")
    for _ in range(2):
        submit(*ADAPT, "--namespace", "team-a", "--token-file", str(tmp_path / "token"))
    assert kubeflow.experiments == {("team-a", "adapt"): "e0"}
    assert [run["experiment_id"] for run in kubeflow.runs] == ["e0", "e0"]
    said = capfd.readouterr()
    assert "t0ken" not in said.out + said.err
    with pytest.raises(UserError, match="give --namespace, your profile's"):
        submit(*ADAPT, "--token-file", str(tmp_path / "token"))


def test_who_is_not_let_in_learns_what_to_give(kubeflow: Kubeflow, submit: Callable[..., None], tmp_path: Path) -> None:
    kubeflow.token = "good"
    with pytest.raises(UserError, match=r"401 Unauthenticated: no token.*: give --token-file or KF_PIPELINES_SA_TOKEN_PATH"):
        submit(*ADAPT)
    (tmp_path / "token").write_text("bad")
    with pytest.raises(UserError, match="give another --token-file"):
        submit(*ADAPT, "--token-file", str(tmp_path / "token"))
    with pytest.raises(UserError, match="there is no token file"):
        submit(*ADAPT, "--token-file", str(tmp_path / "absent"))
    assert not kubeflow.runs


def test_a_page_to_log_in_is_not_taken_for_kubeflow(
    kubeflow: Kubeflow, submit: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeflow, "answer", lambda *_: (200, "<html>log in</html>"))
    with pytest.raises(UserError, match="perhaps a page to log in"):
        submit(*ADAPT)


def test_a_server_that_is_away_is_75(kubeflow: Kubeflow, submit: Callable[..., None]) -> None:
    kubeflow.away = 1
    with pytest.raises(TryAgainError, match="does not answer: 503"):
        submit(*ADAPT)
    done = run_module("pipelines.submit", *ADAPT, "--endpoint", "http://127.0.0.1:9")
    assert (done.returncode, len(errors_in(done.stderr))) == (75, 1), done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*ADAPT, "--epochs", "3"], "Unknown option: --epochs"),
        ([ADAPT[0], *ADAPT[3:]], "task"),
        ([*ADAPT, "--method", "sacla"], "method is 'sacla': give one of plain, scala"),
        (["suite", "--source", "hub", "--model", "minilm", "--tasks", "sst3"], "sst3"),
    ],
)
def test_a_wrong_parameter_is_one_line_before_anything_is_sent(kubeflow: Kubeflow, arguments: list[str], said: str) -> None:
    done = run_module("pipelines.submit", *arguments)
    assert (done.returncode, len(errors_in(done.stderr))) == (2, 1), done.stderr
    assert said in errors_in(done.stderr)[0]
    assert not kubeflow.asked


def test_what_the_compiled_pipeline_does_not_take_is_refused(build: Path) -> None:
    spec = spec_of(build / "doctor.yaml")
    with pytest.raises(UserError, match="has no task"):
        check(Request(build / "doctor.yaml", spec, {"task": "mnli"}, "e", "r", None))
    spec = spec_of(build / "adapt.yaml")
    with pytest.raises(UserError, match="needs task"):
        check(Request(build / "adapt.yaml", spec, {"model": "minilm"}, "e", "r", None))


def test_what_kubeflow_cannot_take_is_not_sent(kubeflow: Kubeflow, submit: Callable[..., None]) -> None:
    with pytest.raises(UserError, match=r"^source has 60000 characters: Kubeflow takes fewer"):
        submit(*ADAPT[:3], "--source", "/" * 60_000, *ADAPT[5:])
    assert not kubeflow.runs
    submit(*ADAPT[:3], "--source", "/" * 59_999, *ADAPT[5:])


def looks(*steps: tuple[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    noise = [task("root", "RUNNING"), task("tokenize-driver", "SUCCEEDED"), task("executor", "SUCCEEDED")]
    return [{"state": state, "run_details": {"task_details": [*noise, *tasks]}} for state, tasks in steps]


def test_waiting_shows_each_change_of_a_stage_once(
    kubeflow: Kubeflow, submit: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    done = task("tokenize", "SUCCEEDED", 1)
    kubeflow.course = looks(
        ("PENDING", []),
        ("RUNNING", [task("tokenize", "PENDING")]),
        ("RUNNING", [task("tokenize", "RUNNING")]),
        ("RUNNING", [task("tokenize", "RUNNING")]),
        ("RUNNING", [done, task("train", "RUNNING")]),
        ("SUCCEEDED", [done, task("train", "SUCCEEDED", 42), task("promote", "SKIPPED")]),
    )
    submit(*ADAPT, "--wait")
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [tuple(line.split()[:2]) for line in lines] == [
        ("tokenize", "pending"),
        ("tokenize", "running"),
        ("tokenize", "succeeded"),
        ("train", "running"),
        ("train", "succeeded"),
        ("promote", "skipped"),
    ]
    assert lines[2:5:2] == ["tokenize     succeeded  1 min 30 s", "train        succeeded  42 min 30 s"]
    assert kubeflow.looks == 6


def test_on_a_terminal_the_last_line_says_what_runs(
    kubeflow: Kubeflow, submit: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow.course = looks(("RUNNING", [task("train", "RUNNING")]), ("SUCCEEDED", [task("train", "SUCCEEDED", 1)]))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    submit(*ADAPT, "--wait")
    shown = capsys.readouterr().out.split("\r\033[K")
    assert re.fullmatch(r"train        running    \d+ h \d+ min\ntrain running  \d+ h \d+ min", shown[1])
    assert shown[2] == "train        succeeded  1 min 30 s\n"


def test_a_server_that_is_away_for_a_while_ends_no_waiting(kubeflow: Kubeflow, submit: Callable[..., None]) -> None:
    kubeflow.course = looks(("RUNNING", [task("train", "RUNNING")]), ("SUCCEEDED", [task("train", "SUCCEEDED", 3)]))
    answer = kubeflow.answer

    def sometimes(method: str, path: str, query: Any, body: Any) -> Any:
        if path.endswith("/r0") and kubeflow.looks == 1 and not kubeflow.away:
            kubeflow.away, kubeflow.looks = 3, kubeflow.looks + 1
            return 500, "starting"
        return answer(method, path, query, body)

    kubeflow.answer = sometimes  # type: ignore[method-assign]
    submit(*ADAPT, "--wait")
    assert len([path for _, path in kubeflow.asked if path.endswith("/r0")]) == 6


def test_a_server_that_stays_away_is_75_and_the_run_goes_on(
    kubeflow: Kubeflow, submit: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.follow.AWAY_SECONDS", 0.05)
    answer = kubeflow.answer
    monkeypatch.setattr(kubeflow, "answer", lambda *it: (503, "away") if it[1].endswith("/r0") else answer(*it))
    with pytest.raises(TryAgainError, match="the run goes on: http"):
        submit(*ADAPT, "--wait")


@pytest.mark.parametrize(
    ("failed", "error", "message"),
    [
        (
            {"error": {"message": "exit status 2\nerror: rows.csv line 3: 4 fields"}},
            UserError,
            "train: rows.csv line 3",
        ),
        ({"error": {"message": f"{RED}: exit code 75"}}, TryAgainError, "train: failed"),
        ({"status_metadata": {"message": "error: no GPU\nexit status 2"}}, UserError, "train: no GPU"),
        ({"state_history": [{"state": "RUNNING"}, {"error": {"message": "exit code: 75"}}]}, TryAgainError, "train: failed"),
        ({"error": {"message": RED}}, FailedError, "train: failed: see http"),
        ({}, FailedError, "train: failed: see http"),
    ],
)
def test_it_ends_as_the_stage_that_failed(
    kubeflow: Kubeflow, submit: Callable[..., None], failed: dict[str, Any], error: type[StageError], message: str
) -> None:
    kubeflow.course = looks(("FAILED", [task("tokenize", "SUCCEEDED", 1), task("train", "FAILED", 2, **failed)]))
    with pytest.raises(error) as raised:
        submit(*ADAPT, "--wait")
    assert str(raised.value).startswith(message)
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("given", "multi_user", "namespace"),
    [((), False, "kubeflow"), (("--namespace", "ml"), False, "ml"), (("--namespace", "team-b"), True, "team-b")],
    ids=["one user", "one user, elsewhere", "many users"],
)
def test_what_kubeflow_does_not_say_the_log_of_the_failed_pod_does(
    given: tuple[str, ...],
    multi_user: bool,
    namespace: str,
    kubeflow: Kubeflow,
    submit: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its pods are not in the namespace that the kubeconfig names: team-a."""
    cluster = Cluster(tmp_path)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    made = {"metadata": {"name": "adapt-x1-train", "creationTimestamp": "2026-11-20T10:00:00Z"}}
    cluster.answers["GET", pods] = (200, {"items": [made]})
    log = "train: 4 ranks\nerror: s3://glue does not answer\nF1120 main.go:61] failed to execute component: exit status 75\n"
    monkeypatch.setattr(cluster, "of_pod", lambda method, name: (200, log))
    monkeypatch.setenv("KUBECONFIG", str(cluster.config))
    kubeflow.multi_user = multi_user
    kubeflow.course = looks(("FAILED", [task("train", "FAILED", 2)]))
    with cluster.running(), pytest.raises(TryAgainError, match=r"^train: s3://glue does not answer: see http"):
        submit(*ADAPT, "--wait", *given)
    assert ("GET", pods, "labelSelector=pipeline%2Frunid%3Dr0&fieldSelector=status.phase%3DFailed") in cluster.asked


def test_a_pod_whose_image_cannot_be_pulled_is_told_once_while_kubeflow_says_that_it_runs(
    kubeflow: Kubeflow,
    submit: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = Cluster(tmp_path)
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "r/x:1"'}
    status = {"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": waiting}}]}
    cluster.answers["GET", "/api/v1/namespaces/kubeflow/pods"] = (
        200,
        {"items": [{"metadata": {"name": "p"}, "status": status}]},
    )
    monkeypatch.setenv("KUBECONFIG", str(cluster.config))
    running = ("RUNNING", [task("train", "RUNNING")])
    kubeflow.course = looks(running, running, running, ("SUCCEEDED", [task("train", "SUCCEEDED", 3)]))
    with cluster.running():
        submit(*ADAPT, "--wait")
    said = capsys.readouterr().out
    assert said.count('p cannot start: ImagePullBackOff: Back-off pulling image "r/x:1"') == 1


def test_a_run_that_kubeflow_tells_nothing_of_any_more_is_followed_by_its_pods(
    kubeflow: Kubeflow,
    submit: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As above 1 MiB: the tasks stand still, the pods do not."""
    cluster, pods = Cluster(tmp_path), "/api/v1/namespaces/kubeflow/pods"

    def pod(stage: str, phase: str) -> dict[str, Any]:
        annotations = {"workflows.argoproj.io/node-name": f"suite-x1.root.{stage}.executor"}
        return {"metadata": {"name": f"suite-x1-{stage}", "annotations": annotations}, "status": {"phase": phase}}

    course = [[pod("train", "Running")], [pod("train", "Succeeded")], [pod("train", "Succeeded"), pod("evaluate", "Running")]]
    answer = kubeflow.answer

    def looked(method: str, path: str, query: Any, body: Any) -> Any:
        cluster.answers["GET", pods] = (200, {"items": course[min(kubeflow.looks // 6, 2)]})
        time.sleep(0.02)
        return answer(method, path, query, body)

    monkeypatch.setattr(kubeflow, "answer", looked)
    monkeypatch.setattr("pipelines.follow.SILENT_SECONDS", 0.03)
    monkeypatch.setenv("KUBECONFIG", str(cluster.config))
    stands = ("RUNNING", [task("train", "RUNNING")])
    error = {"error": {"message": "workflow is longer than maximum allowed size for sqlite"}}
    kubeflow.course = [*looks(*[stands] * 20), {**looks(("FAILED", [task("train", "RUNNING")]))[0], **error}]
    with cluster.running(), pytest.raises(UserError, match="its Workflow has outgrown what Kubernetes keeps"):
        submit(*ADAPT, "--wait")
    said = capsys.readouterr().out.splitlines()
    after = said[said.index(next(line for line in said if line.startswith("Kubeflow shows no progress of this run"))) + 1 :]
    assert after == ["root.evaluate.executor running"]


@pytest.mark.parametrize("end", ["CANCELED", "FAILED"])
def test_a_terminated_run_is_not_taken_for_done_or_failed(end: str, kubeflow: Kubeflow, submit: Callable[..., None]) -> None:
    kubeflow.course = looks(("CANCELING", []), (end, [task("train", "CANCELED", 1), task("evaluate", "PENDING")]))
    kubeflow.course[-1]["state_history"] = [{"state": "RUNNING"}, {"state": "CANCELING"}, {"state": end}]
    with pytest.raises(FailedError, match="the run was terminated: see http"):
        submit(*ADAPT, "--wait")


def test_what_never_began_is_not_pending_at_the_end(
    kubeflow: Kubeflow, submit: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    kubeflow.course = looks(("FAILED", [task("train", "FAILED", 1), task("evaluate", "PENDING")]))
    with pytest.raises(FailedError):
        submit(*ADAPT, "--wait")
    assert "evaluate     not run\n" in capsys.readouterr().out


def test_an_image_means_the_same_before_the_pipelines_name_and_after_it(
    kubeflow: Kubeflow, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = []

    def compiled(folder: Path, **settings: Any) -> Path:
        images.append((settings["image"], settings["train_image"]))
        return build

    monkeypatch.setattr("pipelines.submit.compiled", compiled)
    own = ["--image", "r/stage:1", "--train-image", "r/train:1"]
    for arguments in ([*own, *ADAPT], [*ADAPT, *own]):
        app.meta(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    assert images == [("r/stage:1", "r/train:1")] * 2
    first, second = (run["runtime_config"]["parameters"] for run in kubeflow.runs)
    assert first == second


@pytest.mark.parametrize(("gpus", "resources"), [("0", []), ("8", ["evaluate.gpus=1"])])
def test_evaluate_has_a_gpu_where_the_training_has_some(
    gpus: str, resources: list[str], kubeflow: Kubeflow, build: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("pipelines.submit.compiled", lambda folder, **settings: asked.update(settings) or build)
    app.meta([*ADAPT, "--num-gpus-per-worker", gpus], exit_on_error=False, print_error=False, result_action="return_value")
    assert asked["resources"] == resources
    compile_all(output_dir=tmp_path, resources=asked["resources"])
    executors = spec_of(tmp_path / "adapt.yaml")["deploymentSpec"]["executors"]
    with_gpu = {name for name, each in executors.items() if "accelerator" in each["container"]["resources"]}
    assert with_gpu == ({"exec-evaluate"} if resources else set())


def test_interrupting_the_wait_leaves_the_run_alone(kubeflow: Kubeflow) -> None:
    kubeflow.course = looks(("RUNNING", [task("train", "RUNNING")]))
    command = [sys.executable, "-m", "pipelines.submit", *ADAPT, "--wait"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heed_interrupts}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("train"):
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert f"curl -X POST {kubeflow.endpoint}/apis/v2beta1/runs/r0:terminate" in errors
    assert "Traceback" not in errors
    assert [path for method, path in kubeflow.asked if method == "POST"] == ["/apis/v2beta1/experiments", "/apis/v2beta1/runs"]


def test_stages_are_found_in_what_later_kubeflows_answer_too(build: Path) -> None:
    names = stage_names(spec_of(build / "adapt.yaml"))
    assert {"tokenize", "train", "evaluate", "register", "promote"} <= names
    assert not [name for name in names if "condition" in name or "gate" in name]
    tasks = [
        {"task_id": "1", "name": "tokenize", "state": "CACHED", "create_time": "2026-11-20T10:00:00Z"},
        {"task_id": "2", "name": "passes-the-gate", "state": "RUNNING", "create_time": "2026-11-20T10:00:01Z"},
    ]
    assert [str(stage) for stage in stages_of({"tasks": tasks}, names)] == ["tokenize     cached"]


def test_the_iterations_of_a_loop_are_told_apart(build: Path) -> None:
    names = stage_names(spec_of(build / "suite.yaml"))
    assert {"runs", "suite", "tokenize", "promote"} <= names
    assert "adapt" not in names
    tasks = [task("train", "RUNNING") | {"task_id": f"t{number}"} for number in range(3)]
    assert [stage.name for stage in stages_of({"run_details": {"task_details": tasks}}, names)] == [
        "train",
        "train 2",
        "train 3",
    ]


def test_times_and_reasons_are_read_as_people_would() -> None:
    assert [duration(seconds) for seconds in (9.6, 61, 3700)] == ["10 s", "1 min 1 s", "1 h 1 min"]
    assert reason([RED, "error: a\nerror: b: c\nexit status 1\nexit status 2"]) == (2, "b: c")
    assert reason([]) == (None, "")
