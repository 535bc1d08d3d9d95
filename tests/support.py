"""Functions that several tests call."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_module(module: str, *arguments: object, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE ARGUMENTS` as a user runs it."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment}, cwd=ROOT)


def heed_interrupts() -> None:
    """For Popen's preexec_fn: a process started in the background, as CI may start these tests, inherits SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
