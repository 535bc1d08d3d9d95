"""What the terminal shows of a local run: each stage's own lines. All that kfp prints besides goes to the run's log."""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

INDENT = "    "  # kfp's, before every line of a stage
STARTED = re.compile(r"Executing task \S*?'([\w-]+)'")
NOISE = re.compile(r"\[KFP Executor |Streamed logs:|^\s*$")


@contextmanager
def stages_only(log: Path) -> Iterator[None]:
    """Within the block stdout goes whole to the file `log`, and the stages' lines to the terminal, under their stage's name."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file, redirect_stdout(_Filter(sys.stdout, file)):
        yield


class _Filter(io.TextIOBase):
    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self.terminal = terminal
        self.log = log
        self.line = ""
        self.in_stage = False
        self.in_json = False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.log.write(text)
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            self._show(line)
        return len(text)

    def flush(self) -> None:
        self.log.flush()
        self.terminal.flush()

    def _show(self, line: str) -> None:
        if started := STARTED.search(line):
            self._tell(f"\n{started[1]}")
            self.in_stage = True
        elif " finished with status " in line:
            self.in_stage = False
        elif self.in_json:  # the executor's input, which a stage is told and users know
            self.in_json = line != f"{INDENT}}}"
        elif "Got executor_input:" in line:
            self.in_json = True
        elif self.in_stage and not NOISE.search(line):
            self._tell(f"  {line.removeprefix(INDENT)}")

    def _tell(self, line: str) -> None:
        self.terminal.write(f"{line}\n")  # not print: kfp has put its own in its place, which indents
        self.terminal.flush()
