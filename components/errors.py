"""What a user can cause, and the exit codes that say so.

    0 done   2 the user can mend it   75 try again later   130, 143 interrupted   1 a bug, with its traceback

The same four reach the shell, KFP and `torchrun`. Since torchrun turns every child's code into 1, a failing process also
writes a small JSON record, in the form of torchrun's own error files, that whoever started it reads back.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

RECORD = "error.json"


class StageError(Exception):
    """An expected failure: one line for the user, no traceback."""

    exit_code: int


class UserError(StageError):
    """The user can mend it. The message says what, where and what to do."""

    exit_code = 2


class TryAgainError(StageError):
    """Preempted, or a store or server is away: the same command may work later."""

    exit_code = 75


class NeverStartedError(TryAgainError):
    """It waited for as long as it may for what the cluster did not have: at once it would wait for it again."""


class FailedError(StageError):
    """A process that we started failed, and has shown why in its own output."""

    exit_code = 1


@contextmanager
def exit_codes(beside: str | Path | None = None) -> Iterator[None]:
    """Turn exceptions into one line on stderr and an exit code; leave a bug's traceback alone.

    SIGTERM is raised as SystemExit(143), so that every `with` and `finally` on the way cleans up.

    Args:
        beside: An output; the error record becomes error.json in the same folder. Default: the file that torchrun names in
            TORCHELASTIC_ERROR_FILE, if any.
    """
    record = None
    if beside is not None:
        record = Path(beside).with_name(RECORD)
    elif "TORCHELASTIC_ERROR_FILE" in os.environ:
        record = Path(os.environ["TORCHELASTIC_ERROR_FILE"])
    previous = signal.signal(signal.SIGTERM, _raise_exit)
    try:
        yield
    except StageError as error:
        write_record(record, error.exit_code, str(error))
        if os.environ.get("RANK", "0") == "0":  # every rank makes the same checks: one of them is enough to say it
            print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        write_record(record, 130, "interrupted")
        print("interrupted", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
    except SystemExit as stop:
        if stop.code:
            write_record(record, stop.code if isinstance(stop.code, int) else 1, f"stopped with {stop.code}")
        raise
    except Exception as error:
        write_record(record, 1, f"{type(error).__name__}: {error}")
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


KILLERS: Mapping[int, str] = {
    signal.SIGKILL: "a machine without memory does it",
    signal.SIGABRT: "NCCL does it where a GPU or another rank is lost",
}
"""Signal that ends a process through no fault of its own -> who sends it."""


def killed(who: str, number: int) -> TryAgainError:
    """Of a process that ended by such a signal."""
    return TryAgainError(f"{who} was killed by {signal.Signals(number).name} ({KILLERS[number]})")


def reraise(record: Path, exit_code: int = 1) -> None:
    """Raise what the record at `record` tells of the process that ended with `exit_code`, negative for a signal.

    Raises:
        FailedError: there is none.
        TryAgainError: nor can there be: the process was killed.
    """
    if -exit_code in KILLERS:
        raise killed("it", -exit_code)
    try:
        body = json.loads(record.read_text())["message"]
        message, code = body["message"], body["extraInfo"].get("exit_code", 1)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise FailedError("it failed and left no record of why: see its output above") from None
    if code in (130, 143):
        raise SystemExit(code)
    by_code: dict[int, type[StageError]] = {2: UserError, 75: TryAgainError}
    raise by_code.get(code, FailedError)(message)


def _raise_exit(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


def write_record(record: Path | None, exit_code: int, message: str) -> None:
    """In the form that `reraise` reads, and torchrun."""
    if record is None:
        return
    info = {"timestamp": str(int(time.time())), "exit_code": exit_code, "py_callstack": ""}
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"message": {"message": message, "extraInfo": info}}))
