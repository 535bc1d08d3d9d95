"""What a check found, and the table of all that they found."""

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from components.errors import StageError
from components.launch.api import Api, ApiError, AwayError, Object

Status = Literal["ok", "warning", "failed", "skipped"]

FORBIDDEN = re.compile(r'cannot (\w+) resource "([^"]+)"(?: in API group "([^"]*)")?')
WIDTH = 18  # of the longest name of a check


@dataclass(frozen=True)
class Finding:
    """Of one check. `mend` says what to do about it, where something is to be done."""

    status: Status
    found: str
    mend: str = ""


@dataclass(frozen=True)
class Row:
    check: str
    status: Status
    found: str
    mend: str = ""

    def __str__(self) -> str:
        line = f"{self.status:8} {self.check:{WIDTH}} {self.found}"
        return f"{line}\n{'':{9 + WIDTH}} → {self.mend}" if self.mend else line


def row(check: str, look: Callable[[], Finding]) -> Row:
    """Look, and put what was found, or how it was refused, into a row."""
    try:
        finding = look()
    except ApiError as error:
        finding = refused(error)
    except AwayError as error:
        finding = Finding("failed", f"the API does not answer: {error}", "try again; if it lasts, ask who runs the cluster")
    except StageError as error:
        finding = Finding("failed", str(error))
    return Row(check, finding.status, finding.found, finding.mend)


def row_within(seconds: float, check: str, look: Callable[[], Finding]) -> Row:
    """As `row`, with a limit: a check that hangs is left behind and says so."""
    done: list[Row] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            done.append(row(check, look))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    return done[0] if done else Row(check, "failed", f"no answer within {seconds:.0f} s", "is something in the way, a proxy?")


def refused(error: ApiError) -> Finding:
    """A right that is missing says nothing of what was to be looked at; any other refusal does."""
    if error.status == 401:
        return Finding("failed", f"401 {error.message}", "log in again: the token is not, or no longer, valid")
    if right := missing_right(error):
        return Finding("skipped", f"needs the right to {right}")
    return Finding("failed", f"{error.status} {error.message}")


def missing_right(error: ApiError) -> str:
    """Such as "list nodes"; '' where it is not rights that are missing. Admission refuses with 403 too."""
    found = FORBIDDEN.search(error.message) if error.status == 403 else None
    if not found:
        return ""
    verb, resource, group = found.groups()
    return f"{verb} {resource}{f'.{group}' if group else ''}"


def ask(api: Api, method: str, path: str, body: object = None, query: dict[str, object] | None = None) -> Object:
    """The answer. Asked for twice: one failure says little."""
    try:
        return api.ask(method, path, body, query)
    except AwayError:
        time.sleep(1.0)
        return api.ask(method, path, body, query)


def as_json(rows: Sequence[Row]) -> str:
    return json.dumps([asdict(each) for each in rows], indent=1)


def markdown(rows: Sequence[Row]) -> str:
    """The table for Kubeflow's page."""
    lines = ["| | check | found | what to do |", "| --- | --- | --- | --- |"]
    for each in rows:
        cells = (" ".join(cell.split()).replace("|", r"\|") for cell in (each.status, each.check, each.found, each.mend))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
