"""A suite as runs of its own on Kubeflow, against the stand-in for its API; and the table of what runs registered."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from kubeflow_stub import Kubeflow
from support import ROOT, heed_interrupts, run_module

from components.errors import TryAgainError, UserError

Submit = Callable[..., None]
SUITE = ["suite", "--source", "hub", "--model", "minilm", "--tasks", "rte,cola", "--seeds", "0,1"]
ORDER = [("rte", 0), ("cola", 0), ("rte", 1), ("cola", 1)]
TABLE = re.compile(r"-table-[0-9a-f]{10}$")


def given(run: dict[str, Any]) -> dict[str, Any]:
    return dict(run["runtime_config"]["parameters"])


def sent(kubeflow: Kubeflow) -> list[str]:
    """Of each run, in order: rte-seed-0, or table."""
    return [
        "table" if TABLE.search(run["display_name"]) else "-".join(run["display_name"].split("-")[-3:]) for run in kubeflow.runs
    ]


def pipeline_of(run: dict[str, Any]) -> str:
    return str(run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"])


def test_each_task_with_each_seed_is_a_run_of_adapt_and_the_table_is_of_them_all(
    kubeflow: Kubeflow, submit: Submit, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(*SUITE, "--weight-decay", "0.1", "--experiment", "glue", "--tracking-uri", "http://mlflow:5000")
    *runs, table = kubeflow.runs
    assert [(given(run)["task"], given(run)["seed"]) for run in runs] == ORDER
    overrides = {"weight_decay": 0.1, "tracking_uri": "http://mlflow:5000"}
    for run in runs:
        own = {name: given(run)[name] for name in ("task", "seed")}
        assert given(run) == {**own, "source": "hub", "model": "minilm", "experiment": "glue", "overrides": overrides}
    assert [pipeline_of(run) for run in kubeflow.runs] == ["adapt"] * 4 + ["suite-of-runs"]
    of_table = {"experiment": "glue", "tracking_uri": "http://mlflow:5000"}
    assert given(table) == {"pipeline_run_ids": ["r0", "r1", "r2", "r3"], **of_table}
    assert list(kubeflow.experiments) == [("", "suite")]
    assert re.search(r"^rte, seed 1 +succeeded +5 min 0 s \([34] of 4\)$", capsys.readouterr().out, re.MULTILINE)


def test_the_default_suite_is_27_runs(kubeflow: Kubeflow, submit: Submit, capsys: pytest.CaptureFixture[str]) -> None:
    submit(*SUITE[:5], "--dry-run")
    shown = "[" + capsys.readouterr().out.replace("\n}\n{", "\n},{") + "]"
    requests = json.loads(shown)
    assert [request["pipeline"]["name"] for request in requests] == ["adapt"] * 27 + ["suite-of-runs"]
    assert not kubeflow.asked


def test_no_more_than_asked_for_go_on_at_once(kubeflow: Kubeflow, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = []
    answer = kubeflow.answer

    def counting(method: str, path: str, query: Any, body: Any) -> Any:
        if method == "POST" and path.endswith("/runs"):
            states = [kubeflow.states_of(f"r{number}")[0] for number in range(len(kubeflow.runs))]
            at_once.append(1 + len(states) - states.count("SUCCEEDED"))
            kubeflow.states[body["display_name"]] = ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
        return answer(method, path, query, body)

    monkeypatch.setattr(kubeflow, "answer", counting)
    submit(*SUITE, "--max-parallel", "3")
    assert max(at_once) == 3
    assert at_once[-1] == 1  # the table comes when all have ended


def test_sent_again_it_goes_on_where_it_was(
    kubeflow: Kubeflow, submit: Submit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{task}-seed-{seed}" for task, seed in ORDER]
    kubeflow.states["cola-seed-0"] = ["FAILED"]
    failed = r"^1 of 4 runs failed, cola, seed 0 for one: train: no such column: see http\S+; the same command"
    with pytest.raises(UserError, match=failed):
        submit(*SUITE)
    assert sent(kubeflow) == names  # the others went on, and there is no table of a part
    kubeflow.states = {"rte-seed-1": ["RUNNING", "RUNNING", "SUCCEEDED"]}  # as if it had been left while it ran
    told = kubeflow.told
    monkeypatch.setattr(kubeflow, "told", lambda it: told(it) | ({"state": "FAILED"} if it == "r1" else {}))
    capsys.readouterr()
    submit(*SUITE)
    assert sent(kubeflow) == [*names, "cola-seed-0", "table"]
    assert given(kubeflow.runs[-1])["pipeline_run_ids"] == ["r0", "r4", "r2", "r3"]
    said = capsys.readouterr().out
    assert re.findall(r"^(\w+, seed \d) +(already there|goes on|sent) ", said, re.MULTILINE) == [
        ("rte, seed 0", "already there"),
        ("cola, seed 0", "sent"),
        ("rte, seed 1", "goes on"),
        ("cola, seed 1", "already there"),
    ]
    submit(*SUITE)
    assert len(kubeflow.runs) == 6  # all is there, the table too
    submit(*SUITE[:-1], "0,1,2")
    assert sent(kubeflow)[6:] == ["rte-seed-2", "cola-seed-2", "table"]


def test_other_settings_or_another_name_are_another_suite(kubeflow: Kubeflow, submit: Submit) -> None:
    submit(*SUITE)
    submit(*SUITE, "--num-epochs", "5")
    submit(*SUITE, "--run-name", "mine")
    assert len(kubeflow.runs) == 15
    assert len({run["display_name"] for run in kubeflow.runs}) == 15
    assert kubeflow.runs[-1]["display_name"].startswith("mine-")


def test_a_terminated_run_is_sent_again(kubeflow: Kubeflow, submit: Submit) -> None:
    kubeflow.states["rte-seed-0"] = ["CANCELED"]
    with pytest.raises(Exception, match="the run was terminated"):
        submit(*SUITE)
    with pytest.raises(Exception, match="the run was terminated"):
        submit(*SUITE)
    assert sent(kubeflow)[4:] == ["rte-seed-0"]


def test_a_server_that_stays_away_is_75(kubeflow: Kubeflow, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.follow.AWAY_SECONDS", 0.05)
    answer = kubeflow.answer
    monkeypatch.setattr(kubeflow, "answer", lambda *it: (503, "away") if "/runs/" in it[1] else answer(*it))
    with pytest.raises(TryAgainError, match="the run goes on: http"):
        submit(*SUITE)


def test_max_parallel_is_one_at_least(kubeflow: Kubeflow, submit: Submit) -> None:
    with pytest.raises(UserError, match="--max-parallel is 0: give 1 or more"):
        submit(*SUITE, "--max-parallel", "0")
    assert not kubeflow.asked


def test_interrupting_it_leaves_the_runs_alone_and_says_which(kubeflow: Kubeflow) -> None:
    kubeflow.states["-0"] = ["RUNNING"]
    command = [sys.executable, "-m", "pipelines.submit", *SUITE]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heed_interrupts}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("cola, seed 0"):
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "the same command goes on from here" in errors
    assert len(re.findall(r"^  (?:rte|cola), seed 0: http", errors, re.MULTILINE)) == 2
    assert "Traceback" not in errors


# --- the table of what runs registered ---


@pytest.mark.slow
def test_runs_of_adapt_become_one_table(tmp_path: Path) -> None:
    small = ("--source", "sample", "--num-sample-rows", "80", "--model", "tiny", "--num-epochs", "1", "--runs-dir", tmp_path)
    for seed in ("0", "1"):
        done = run_module("pipelines.local", "adapt", "--task", "wnli", "--seed", seed, *small, timeout=300)
        assert done.returncode == 0, done.stderr
    ids = sorted(folder.name for folder in tmp_path.glob("adapt-*"))
    of_table = ("pipelines.local", "suite-of-runs", "--runs-dir", tmp_path, "--pipeline-run-ids")
    done = run_module(*of_table, *ids, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| sample-wnli +\| accuracy +\| +2 \| +\d+\.\d\d \| ", done.stdout, re.MULTILINE)
    (manifest,) = tmp_path.glob("suite-of-runs-*/*/suite-of-runs/glue/manifest.json")
    origins = json.loads(manifest.read_text())["origins"]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for version in client.search_model_versions("name = 'sample-wnli'"):
        number = ids.index(version.tags["kfp.pipeline_run_id"])
        assert origins[f"sample-wnli-{number}"]["uri"] == f"runs:/{version.run_id}/evaluation"
    done = run_module(*of_table, ids[0], "absent", timeout=300)
    message = "error: pipeline run absent has registered nothing in MLflow's experiment adapt\n"
    assert (done.returncode, done.stderr) == (2, message)
