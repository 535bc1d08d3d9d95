"""What the terminal shows of a local run: each stage's own lines. All that kfp prints besides goes to the run's log."""

import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

INDENT = "    "  # kfp's, before every line of a stage
STARTED = re.compile(r"Executing task \S*?'([\w-]+)'")
ITERATION = re.compile(r"/for-loop-\d+-iteration-(\d+)/([\w-]+)/")  # and the stage whose output is there
COPY = re.compile(r"-\d+$")
"""What kfp puts after the name of a step that is in the pipeline twice."""
NOISE = re.compile(r"\[KFP Executor |Streamed logs:|^\s*$")


@contextmanager
def stages_only(log: Path, iterations: Sequence[str] = ()) -> Iterator["Terminal"]:
    """Within the block stdout goes whole to the file `log`, and the stages' lines to the terminal, under their stage's name.

    Args:
        iterations: What the iterations of the pipeline's loop are called; one of them runs at a time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file, redirect_stdout(Terminal(sys.stdout, file, iterations)) as terminal:
        yield terminal


class Terminal(io.TextIOBase):
    """Takes what kfp prints. Once it is `stopped`, no stage starts any more: not one of a loop's later iterations either."""

    def __init__(self, terminal: TextIO, log: TextIO, iterations: Sequence[str]) -> None:
        self.terminal = terminal
        self.log = log
        self.iterations = iterations
        self.stopped = False
        self.line = ""
        self.heading = ""
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
            if self.stopped:
                raise SystemExit("stopped")  # in the thread of the loop, which would go on
            self.heading = started[1]
            self.in_stage = True
        elif " finished with status " in line:
            self._head()
            self.in_stage = False
        elif self.in_json:  # the executor's input, which a stage is told and users know
            if (place := ITERATION.search(line)) and place[2] == self.heading:
                number = int(place[1])
                self.heading += f": {self.iterations[number]} ({number + 1} of {len(self.iterations)})"
                self._head()
            self.in_json = line != f"{INDENT}}}"
        elif "Got executor_input:" in line:
            self.in_json = True
        elif self.in_stage and not NOISE.search(line):
            self._head()
            self._show_line(f"  {line.removeprefix(INDENT)}")

    def _head(self) -> None:
        if self.heading:
            name, _, where = self.heading.partition(": ")
            self._show_line("\n" + ": ".join(filter(None, (COPY.sub("", name), where))))
        self.heading = ""

    def _show_line(self, line: str) -> None:
        self.terminal.write(f"{line}\n")  # not print: kfp has put its own in its place, which indents
        self.terminal.flush()
