import json
import os
import signal
from pathlib import Path

import pytest

from components import errors


@pytest.mark.parametrize(("error", "code"), [(errors.UserError("no file 'x'"), 2), (errors.TryAgainError("store away"), 75)])
def test_an_expected_failure_is_one_line_and_its_code(
    error: errors.StageError, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped, errors.exit_codes(beside=tmp_path / "out"):
        raise error
    assert stopped.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize("kind", [errors.UserError, errors.TryAgainError])
def test_a_record_is_raised_again_as_what_it_was(kind: type[errors.StageError], tmp_path: Path) -> None:
    with pytest.raises(SystemExit), errors.exit_codes(beside=tmp_path / "out"):
        raise kind("what, where, what to do")
    with pytest.raises(kind, match="what, where, what to do"):
        errors.reraise(tmp_path / errors.RECORD)


def test_a_bug_keeps_its_traceback_and_leaves_a_record(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), errors.exit_codes(beside=tmp_path / "out"):
        print(1 / 0)
    with pytest.raises(errors.FailedError, match="ZeroDivisionError"):
        errors.reraise(tmp_path / errors.RECORD)


def test_no_record_is_a_failure_too(tmp_path: Path) -> None:
    with pytest.raises(errors.FailedError, match="no record"):
        errors.reraise(tmp_path / "absent.json")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_process_that_was_killed_may_be_tried_again(tmp_path: Path, number: signal.Signals) -> None:
    with pytest.raises(errors.TryAgainError, match=f"killed by {number.name}"):
        errors.reraise(tmp_path / "absent.json", -number)


def test_sigterm_cleans_up_and_is_143(tmp_path: Path) -> None:
    cleaned = []
    with pytest.raises(SystemExit) as stopped, errors.exit_codes(beside=tmp_path / "out"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            cleaned.append(True)
    assert stopped.value.code == 143
    assert cleaned


def test_the_record_has_the_form_that_torchrun_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit), errors.exit_codes():
        raise errors.UserError("x")
    message = json.loads((tmp_path / "error.json").read_text())["message"]
    assert message["message"] == "x"
    assert int(message["extraInfo"]["timestamp"]) > 0
