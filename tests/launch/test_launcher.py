"""The launcher against recordings of a real cluster: what it says of each, while the API fails too; nothing stays behind."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from apiserver import KINDS
from launcher import SPEED, absent, api_of, exit_codes, job, limits_of, played, played_as_recorded, stopped_after, stored
from recorded import load
from replay import refusing, replay
from scenarios import REFUSALS, SCENARIOS, Refusal, Scenario

from components.errors import FailedError, NeverStartedError, StageError, TryAgainError, UserError
from components.launch.api import JOBS, PODS
from components.launch.job import manifest
from components.launch.jobs import create
from components.launch.lifecycle import Ran, error_of, run_once, run_to_end
from components.launch.watch import Watch, run_safely

ENDING = [scenario for scenario in SCENARIOS if scenario.outcome not in ("cancelled", "carries_on")]
OUTCOME = {UserError: "user", TryAgainError: "retry", NeverStartedError: "retry", FailedError: "bug"}


def name_of(scenario: Scenario | Refusal) -> str:
    return f"{scenario.name}-{scenario.outcome}" if isinstance(scenario, Scenario) else f"{scenario.scenario}-{scenario.answer}"


def says(text: str, words: tuple[str, ...]) -> bool:
    return all(word.lower() in text.lower() for word in words)


@pytest.mark.parametrize("scenario", ENDING, ids=name_of)
def test_a_job_ends_as_it_did(scenario: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran, cluster = played(scenario, tmp_path)
    assert isinstance(ran, Ran)
    assert ran.verdict.outcome == scenario.outcome
    assert says(ran.verdict.cause, scenario.cause), ran.verdict.cause
    assert "\n" not in ran.verdict.cause
    for replica, codes in scenario.exit_codes.items():
        assert exit_codes(ran)[replica][: len(codes)] == codes
    if scenario.restarts:
        assert max(run.number for run in ran.runs) - 1 == scenario.restarts
    said = capsys.readouterr().out
    assert says(said, scenario.remarks), said
    assert says((tmp_path / "job.log").read_text(), (ran.verdict.outcome,))
    assert cluster.left_behind() == []
    assert scenario.by is None or cluster.moment() < scenario.by


@pytest.mark.parametrize("scenario", ENDING, ids=name_of)
def test_it_ends_so_whatever_the_api_fails_at(scenario: Scenario, tmp_path: Path) -> None:
    """The first request of each kind fails: all kinds of failure side by side."""
    with ThreadPoolExecutor(len(KINDS)) as pool:
        ends = list(pool.map(lambda kind: played_as_recorded(scenario, tmp_path / kind, kind), KINDS))
    for kind, (ran, cluster) in zip(KINDS, ends, strict=True):
        assert isinstance(ran, Ran), f"{kind}: {ran}"
        assert ran.verdict.outcome == scenario.outcome, f"{kind}: {ran.verdict.cause}"
        assert cluster.left_behind() == [], kind


def test_a_pod_watch_that_hangs_hides_no_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(watch: Watch, failed: Callable[[Exception], None]) -> None:
        if watch.path == PODS:
            watch.stopped.wait()
        else:
            run_safely(watch, failed)

    monkeypatch.setattr("components.launch.lifecycle.run_safely", hang)
    scenario = next(it for it in SCENARIOS if it.name.startswith("02-"))
    ran, cluster = played(scenario, tmp_path)
    assert isinstance(ran, Ran)
    assert (ran.verdict.outcome, says(ran.verdict.cause, scenario.cause)) == ("bug", True), ran.verdict.cause
    assert cluster.left_behind() == []


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ENDING, ids=name_of)
def test_it_ends_so_whichever_request_fails(scenario: Scenario, tmp_path: Path) -> None:
    cases = [(kind, nth) for kind in KINDS for nth in range(1, 21)]
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda case: played_as_recorded(scenario, tmp_path / f"{case[0]}-{case[1]}", *case), cases))
    for case, (ran, cluster) in zip(cases, ends, strict=True):
        assert isinstance(ran, Ran), f"{case}: {ran}"
        assert ran.verdict.outcome == scenario.outcome, f"{case}: {ran.verdict.cause}"
        assert cluster.left_behind() == [], case


@pytest.mark.parametrize("scenario", [it for it in SCENARIOS if it.outcome == "cancelled"], ids=name_of)
def test_a_launcher_that_is_stopped_takes_the_job_along(scenario: Scenario, tmp_path: Path) -> None:
    assert scenario.stop_after is not None
    speed = 8.0  # what the ranks say of it was recorded within a second, which 30 times faster is 33 ms
    with replay(scenario.name, speed=speed) as cluster:
        with pytest.raises(SystemExit, match="143"), stopped_after(scenario.stop_after / speed):
            api, limits = api_of(cluster, speed), limits_of(scenario, speed)
            run_once(api, job(scenario.ranks), "pytorchjob", limits, tmp_path, absent)
        time.sleep(1 / speed)  # the pods hear of it a moment later
        assert cluster.left_behind() == []
    assert "deleted, since the step that launched it was stopped" in (tmp_path / "job.log").read_text()
    assert "got SIGTERM" in (tmp_path / "master-0.1.log").read_text()  # the tail is there


@pytest.mark.parametrize("scenario", [it for it in SCENARIOS if it.outcome == "carries_on"], ids=name_of)
def test_a_node_that_does_not_answer_is_no_end(scenario: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = max(change["t"] for change in load(scenario.name)["changes"])
    with replay(scenario.name, speed=SPEED) as cluster:
        with pytest.raises(SystemExit, match="143"), stopped_after((last + 10) / SPEED):
            run_once(api_of(cluster), job(scenario.ranks), "pytorchjob", limits_of(scenario), tmp_path, absent)
        time.sleep(1 / SPEED)  # the pods hear of it a moment later
        assert cluster.left_behind() == []
    assert says(capsys.readouterr().out, scenario.remarks)


@pytest.mark.parametrize("refusal", REFUSALS, ids=name_of)
def test_a_refused_job_says_why_and_leaves_nothing(refusal: Refusal, tmp_path: Path) -> None:
    with refusing(refusal.scenario, refusal.answer) as cluster:
        api = api_of(cluster, away=10 if refusal.outcome == "retry" else 600)
        with pytest.raises(StageError) as caught:
            run_to_end(api, job(), "pytorchjob", limits_of(SCENARIOS[0]), tmp_path, stored)
        assert OUTCOME[type(caught.value)] == refusal.outcome
        assert says(str(caught.value), refusal.cause), caught.value
        assert cluster.left_behind() == []


def test_a_missing_right_is_named_before_anything_is_created(tmp_path: Path) -> None:
    with replay("01", speed=SPEED) as cluster:
        cluster.deny("get", "pods/log")
        cluster.deny("delete", "pytorchjobs")
        with pytest.raises(UserError, match=r"delete pytorchjobs\.kubeflow\.org, get pods/log"):
            run_to_end(api_of(cluster), job(), "pytorchjob", limits_of(SCENARIOS[0]), tmp_path, stored)
        assert cluster.created == []


def test_a_webhook_that_is_away_is_told_and_waited_for_no_longer_than_a_start_may_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with refusing("18b-webhook-unavailable", "create") as cluster:
        api, limits = api_of(cluster), replace(limits_of(SCENARIOS[0]), start=30 / SPEED)
        with pytest.raises(NeverStartedError, match=r"cannot be created: .* has failed for \d s \(500 .*webhook"):
            run_to_end(api, job(), "pytorchjob", limits, tmp_path, absent)
        assert cluster.moment() < 60
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("waits for ")]
    assert "failed calling webhook" in line


def test_an_operator_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with replay("01", speed=SPEED) as cluster:
        cluster.without_crd()
        with pytest.raises(UserError, match="install the Kubeflow training operator"):
            run_to_end(api_of(cluster), job(), "pytorchjob", limits_of(SCENARIOS[0]), tmp_path, stored)


def test_logs_are_whole_and_marked_by_rank_and_life(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = next(it for it in SCENARIOS if it.name.startswith("05-"))
    played(scenario, tmp_path)
    lines = {path.name: path.read_text().splitlines() for path in tmp_path.glob("*-*.log")}
    assert {name: len(kept) for name, kept in lines.items()} == {
        "master-0.1.log": 25,
        "worker-0.1.log": 5,
        "worker-0.2.log": 11,
    }
    said = capsys.readouterr().out.splitlines()
    for name, prefix in (
        ("master-0.1.log", "[master-0] "),
        ("worker-0.1.log", "[worker-0] "),
        ("worker-0.2.log", "[worker-0.2] "),
    ):
        assert [line.removeprefix(prefix) for line in said if line.startswith(prefix)] == [
            line.partition(" ")[2] for line in lines[name]
        ]


@pytest.mark.parametrize("kind", ["reset", "lost", "500"])
def test_a_log_that_is_cut_goes_on_where_it_was(kind: str, tmp_path: Path) -> None:
    ran, _ = played(SCENARIOS[0], tmp_path, kind)
    assert isinstance(ran, Ran)
    steps = [line.split(" ", 1)[1] for line in (tmp_path / "worker-1.1.log").read_text().splitlines()]
    assert steps == ["rank 2 of 3", *(f"step {step} loss 2.{100 - step}" for step in range(1, 7))]


def test_a_second_try_takes_over_the_job_of_the_first(tmp_path: Path) -> None:
    with replay("01", speed=SPEED) as cluster:
        api, body = api_of(cluster), manifest(job(), "pytorchjob")
        first = create(api, "pytorchjob", body)
        ran = run_once(api, job(), "pytorchjob", limits_of(SCENARIOS[0]), tmp_path, stored)
        assert ran.verdict.outcome == "succeeded"
        assert len(cluster.created) == 1
        assert first["metadata"]["uid"]


def test_a_second_try_with_other_parameters_replaces_the_job_of_the_first(tmp_path: Path) -> None:
    with replay("01", speed=SPEED) as cluster:
        api = api_of(cluster)
        create(api, "pytorchjob", manifest(job(command=["another"]), "pytorchjob"))
        ran = run_once(api, job(), "pytorchjob", limits_of(SCENARIOS[0]), tmp_path, stored)
        assert ran.verdict.outcome == "succeeded"
        assert [
            body["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["command"]
            for body in cluster.created
        ] == [
            ["another"],
            ["python"],
        ]
        assert cluster.left_behind() == []


def test_a_job_that_is_being_deleted_is_waited_for() -> None:
    with replay("01", speed=SPEED) as cluster:
        api, body = api_of(cluster), manifest(job(), "pytorchjob")
        first = create(api, "pytorchjob", body)
        api.request("DELETE", f"{JOBS}/adapt-train-1", {"propagationPolicy": "Foreground"})
        assert create(api, "pytorchjob", body)["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_job_of_somebody_else_is_left_alone() -> None:
    with replay("01", speed=SPEED) as cluster:
        api = api_of(cluster)
        create(api, "pytorchjob", manifest(job(labels={"owner": "another"}), "pytorchjob"))
        with pytest.raises(UserError, match="not this run's"):
            create(api, "pytorchjob", manifest(job(), "pytorchjob"))
        assert cluster.left_behind()[0] == "adapt-train-1"


def test_one_that_never_started_is_told_from_one_that_was_taken_away(tmp_path: Path) -> None:
    kinds = {"08-unschedulable": NeverStartedError, "14d-worker-pod-deleted-restart-never": TryAgainError}
    for name, kind in kinds.items():
        ran, _ = played(next(it for it in SCENARIOS if it.name == name), tmp_path / name)
        assert isinstance(ran, Ran)
        assert type(error_of(ran)) is kind


def test_an_api_that_is_away_for_good_is_not_the_jobs_end(tmp_path: Path) -> None:
    with replay("03b", speed=SPEED) as cluster:
        create(api_of(cluster), "pytorchjob", manifest(job(), "pytorchjob"))  # with all the patience that a busy machine needs
        time.sleep(5 / SPEED)
        cluster.fail_all("503")
        with pytest.raises(TryAgainError, match="may still run"):
            run_once(api_of(cluster, away=10), job(), "pytorchjob", limits_of(SCENARIOS[0]), tmp_path, stored)
        cluster.fail_all()
        assert set(cluster.left_behind()) == {"adapt-train-1", "adapt-train-1-master-0", "adapt-train-1-worker-0"}


@pytest.mark.parametrize(("name", "code"), [("02", 1), ("06", 2), ("08", 75), ("14d", 75), ("22", 2)])
def test_every_outcome_has_its_exit_code(name: str, code: int, tmp_path: Path) -> None:
    ran, _ = played(next(it for it in SCENARIOS if it.name.startswith(f"{name}-")), tmp_path)
    assert isinstance(ran, Ran)
    assert error_of(ran).exit_code == code
