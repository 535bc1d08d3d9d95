"""Ranks as processes of this machine."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from components import errors

CORES = Path("/sys/fs/cgroup/cpu.max")
"""What a container may use of its machine's cores: microseconds of them, in so many microseconds; or "max"."""


@contextmanager
def launched(stage: str, arguments: Mapping[str, object], num_processes: int) -> Iterator[Callable[[], None]]:
    """components.STAGE on `num_processes` ranks, ended if the block ends before they do. Yields what waits for them.

    Args:
        arguments: The stage's, by name.

    Raises:
        UserError, TryAgainError, FailedError: what the first rank that failed said.
    """
    if num_processes < 1:
        raise errors.UserError(f"num_processes is {num_processes}: give 1 or more")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()]
    ranks = ["-m", "components.launch.ranks", "--standalone", f"--nproc-per-node={num_processes}"] if num_processes > 1 else []
    command = [sys.executable, *ranks, "-m", f"components.{stage}", *flags]
    threads = str(threads_each(num_processes))
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / errors.RECORD
        environment = {"OMP_NUM_THREADS": threads, **os.environ, "TORCHELASTIC_ERROR_FILE": str(record)}
        with subprocess.Popen(command, env=environment) as process:

            def wait() -> None:
                if code := process.wait():
                    errors.reraise(record, code)

            try:
                yield wait
            finally:  # after Ctrl-C or SIGTERM: take the ranks along, and let them clean up
                if process.poll() is None:
                    process.terminate()


def threads_each(num_processes: int) -> int:
    """A process's share of the cores, of which a container may have fewer than its machine."""
    cores = float(os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):
        quota, period = CORES.read_text().split()
        cores = min(cores, int(quota) / int(period))
    return max(1, int(cores / num_processes))
