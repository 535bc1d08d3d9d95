"""How a training job ends: whether it has, how, and why in one line."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from components import errors
from components.launch.queueing import never_admitted
from components.launch.state import SUCCEEDED, Run, State, succeeded
from components.launch.wording import HOPELESS, REFUSED, describe, phases, taken_away, unschedulable, waiting_of

Outcome = Literal["succeeded", "user", "retry", "bug"]


@dataclass(frozen=True)
class Limits:
    """In seconds, but for max_restarts.

    start: until all ranks run, the time in a queue (suspended) apart; also after a pod was replaced.
    job: that the ranks may run; 0 for any.
    settle: to wait, once a rank has failed, for what else there is to see of the cause.
    condition: to wait for the operator's word once all ranks have ended well.
    max_restarts: of ranks that failed by themselves.
    """

    start: float = 900.0
    job: float = 0.0
    settle: float = 3.0
    condition: float = 120.0
    max_restarts: int = 3


@dataclass(frozen=True)
class Verdict:
    """`run`: the life whose end is the cause, if one's is."""

    outcome: Outcome
    cause: str
    run: Run | None = None


@dataclass
class Clock:
    """When, by this process's clock, things about the job became so; None while they are not."""

    down: float | None = None
    up: float | None = None
    failed: float | None = None
    ended: float | None = None

    def heed(self, state: State, now: float) -> None:
        waits = not state.all_up and not state.is_suspended
        self.down = (self.down or now) if waits else None
        if state.all_up and self.up is None:
            self.up = now
        self.failed = (self.failed or now) if has_failed(state) else None
        self.ended = (self.ended or now) if state.all_ended_well else None


def decide(state: State, clock: Clock, limits: Limits, now: float) -> Verdict | None:
    """The job's end, as far as it can be known; None while it goes on."""

    def over(since: float | None, seconds: float) -> bool:
        return since is not None and now - since >= seconds

    if succeeded(state) or over(clock.ended, limits.condition):
        return Verdict("succeeded", _success(state))
    if over(clock.failed, limits.settle):
        return failure(state)
    if state.gone:
        return Verdict("retry", "the training job was deleted by someone else while it ran")
    if state.is_suspended and never_admitted(state.waits_for):
        less = "ask for less (num_workers, cpu_per_worker, memory_per_worker, num_gpus_per_worker) or give another queue"
        return Verdict("user", f"its queue will never admit it: {state.waits_for}: {less}")
    failures = state.failures()
    if clock.failed is None and len(failures) > limits.max_restarts:
        last = failures[-1]
        cause = f"crash loop: {len(failures)} failures for {limits.max_restarts} restarts; the last: {describe(last)}"
        return Verdict("bug", cause, last)
    if over(clock.down, limits.start):
        return not_started(state, limits.start)
    if limits.job and over(clock.up, limits.job):
        return Verdict("user", f"the training ran for longer than its limit of {limits.job:.0f} s: raise job_timeout_minutes")
    return None


def weighed(verdict: Verdict, state: State, is_stored: bool) -> Verdict:
    """The verdict, by what counts: a job has succeeded when its output stands whole where it belongs.

    A user's error stays one: what stands there is then another's.
    """
    if is_stored and verdict.outcome in ("retry", "bug"):
        return Verdict("succeeded", f"its output is whole, though {verdict.cause}")
    if not is_stored and verdict.outcome == "succeeded":
        if state.failures() or state.incidents:
            return failure(state)
        return Verdict("bug", f"{verdict.cause}, but there is no output")
    return verdict


def has_failed(state: State) -> bool:
    """For good: the operator says so, or a rank has failed whose pod nothing starts again, or ran out of memory.

    Nothing is started again once the operator says that it is over: an elastic job has succeeded for it with its first Worker.
    """
    if state.condition("Failed"):
        return True
    if state.condition(*SUCCEEDED) and not succeeded(state) and not any(map(state.runs_on, state.replicas)):
        return True
    never = {role.lower() for role, spec in _specs(state).items() if spec.get("restartPolicy") == "Never"}
    return any(run.out_of_memory or run.replica.rpartition("-")[0] in never for run in state.failures())


def failure(state: State) -> Verdict:
    """Why it failed. One rank's end makes the others fail or be deleted: what was seen first counts.

    But for what says more than a plain code: out of memory, an error that the user can mend, a kill.
    """
    failures = state.failures()
    for run in failures:
        if run.out_of_memory:
            limit = f" (limit {run.memory_limit})" if run.memory_limit else ""
            mend = "raise memory_per_worker or lower micro_batch_tokens"
            return Verdict("user", f"out of memory in {run.replica}{limit}: {mend}", run)
    word = str((state.condition("Failed") or {}).get("message", ""))
    if "deadline" in word and not failures:
        return Verdict("retry", f"the operator ended it: {word}")
    if "backoff limit" in word and not failures:  # its pods are deleted by then
        return Verdict("bug", f"the operator gave it up: {word}")
    row = state.incidents_that_count()
    first = next(iter(row.values()), None)
    if first and first.what == "taken":  # those that failed after it failed because of it
        return Verdict("retry", taken_away(state, first))
    failing = [run for run in failures if (run.uid, run.restart) in row]
    telling: list[Callable[[Run], bool]] = [
        lambda run: run.exit_code == errors.UserError.exit_code,
        # Ranks whose peers have gone may end by SIGTERM too.
        lambda run: bool(run.disruption) or ((run.exit_code or 0) > 128 and run.exit_code != 128 + signal.SIGTERM),
        lambda run: run.exit_code == errors.TryAgainError.exit_code,
        lambda run: True,
    ]
    for tells in telling:
        for run in failing or failures:  # what failed before and was started again counts where nothing else did
            if tells(run):
                restarts = max(other.number for other in failures if other.replica == run.replica) - 1
                return Verdict(outcome_of(run), describe(run) + (f", after {restarts} restart(s)" if restarts else ""), run)
    return Verdict("retry", f"no rank failed by itself; the operator says: {word}")


def outcome_of(run: Run) -> Outcome:
    if run.exit_code == errors.UserError.exit_code:
        return "user"
    killed = (run.exit_code or 0) > 128 or run.exit_code == errors.TryAgainError.exit_code
    return "retry" if killed or run.disruption else "bug"


def not_started(state: State, seconds: float) -> Verdict:
    """Why the ranks that are missing are missing: what the user can mend first."""
    after = f"after {seconds:.0f} s"
    missing = [replica for replica in state.replicas if not state.is_up(replica)]
    some = f"{len(missing)} of {len(state.replicas)} pods ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''})"
    for replica in missing:
        for waiting in waiting_of(state, replica):
            if waiting.get("reason") in HOPELESS:
                return Verdict("user", f"{replica} cannot start {after}: {waiting['reason']}: {waiting.get('message', '')}")
    if refused := state.messages(*REFUSED):
        return Verdict("user", f"{some} cannot be created {after}: {refused[-1].removeprefix('Error creating: ')}")
    for replica in missing:
        if message := unschedulable(state, replica):
            return Verdict("retry", f"{some} cannot be scheduled {after}: {message}")
    if not state.pods:
        said = "; ".join(state.messages("FailedScheduling", "Unschedulable")) or "the job has no pods"
        return Verdict("user", f"{said} {after}: is the training operator running? python -m components.doctor tells")
    crashed = [run for run in map(state.last_run, missing) if run and run.exit_code]
    if crashed:
        return Verdict(outcome_of(crashed[0]), f"{describe(crashed[0])}, and did not start again {after}")
    return Verdict("retry", f"{some} do not run {after}: {'; '.join(phases(state, missing))}")


def _success(state: State) -> str:
    ended = sum(run.exit_code == 0 for run in map(state.last_run, state.replicas) if run)
    return f"{ended} of {len(state.replicas)} pods ended well"


def _specs(state: State) -> dict[str, dict[str, str]]:
    spec = (state.job or {}).get("spec", {})
    return spec.get("pytorchReplicaSpecs") or ({"node": {"restartPolicy": "Never"}} if "trainer" in spec else {})
