"""What is made of a job whose pods came and went while nobody was told."""

from typing import Any

import pytest
from recorded import load

from components.launch.state import State
from components.launch.verdict import failure

RELIST = 7.0  # the pods' watch breaks off before the end, and the next list is of this second
SWEPT = "SuccessfulDeletePod"


def told(scenario: str, broken_off: float, without: str = "") -> State:
    """All that is recorded of the job, its events (but those of one reason) and, up to a second, its pods."""
    state = State()
    for change in load(scenario)["changes"]:
        kind, item = change["type"], change["object"]
        if "involvedObject" in item:
            if item["reason"] != without:
                state.tell_event(kind, item)
        elif "containers" not in item["spec"]:
            state.tell_job(kind, item)
        elif change["t"] <= broken_off:
            state.tell_pod(kind, item)
    return state


def relist(state: State, scenario: str, gone: set[str]) -> None:
    """As a watch tells of a new list: first what is no longer there, as it was known, then what is another now."""
    last: dict[str, Any] = {}
    for change in load(scenario)["changes"]:
        if "containers" in change["object"].get("spec", {}) and change["t"] <= RELIST:
            last[change["object"]["metadata"]["name"].rpartition("@JOB@-")[2]] = change["object"]
    known = {pod["metadata"]["name"].rpartition("@JOB@-")[2]: pod for pod in state.pods.values()}
    for name in gone:
        state.tell_pod("DELETED", {key: value for key, value in known[name].items() if key != "present"})
    for name in last.keys() - gone:
        state.tell_pod("MODIFIED", last[name])


@pytest.mark.parametrize(
    ("without", "outcome", "cause"), [("", "bug", "master-0 exited with 1"), (SWEPT, "retry", "was deleted from outside")]
)
def test_what_the_operator_swept_away_is_not_the_cause(without: str, outcome: str, cause: str) -> None:
    scenario = "04-master-exit-1-while-workers-run"
    state = told(scenario, broken_off=3.0, without=without)
    relist(state, scenario, {"worker-0", "worker-1"})
    verdict = failure(state)
    assert verdict.outcome == outcome
    assert cause in verdict.cause


def test_a_crash_loop_whose_pods_nobody_saw_is_still_the_programs() -> None:
    verdict = failure(told("03-worker-exit-1-onfailure-backofflimit", broken_off=-1.0))
    assert verdict.outcome == "bug"
    assert "reached the specified backoff limit" in verdict.cause
