"""Ranks as processes of this machine."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from components import errors


@contextmanager
def launched(arguments: Mapping[str, object], num_processes: int) -> Iterator[Callable[[], None]]:
    """components.train on `num_processes` ranks, ended if the block ends before they do. Yields what waits for them.

    Args:
        arguments: The stage's, by name.

    Raises:
        UserError, TryAgainError, FailedError: what the first rank that failed said.
    """
    if num_processes < 1:
        raise errors.UserError(f"num_processes is {num_processes}: give 1 or more")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()]
    ranks = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"] if num_processes > 1 else []
    command = [sys.executable, *ranks, "-m", "components.train", *flags]
    threads = str(max(1, (os.cpu_count() or 1) // num_processes))
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / errors.RECORD
        environment = {"OMP_NUM_THREADS": threads, **os.environ, "TORCHELASTIC_ERROR_FILE": str(record)}
        with subprocess.Popen(command, env=environment) as process:

            def wait() -> None:
                if process.wait():
                    errors.reraise(record)

            try:
                yield wait
            finally:  # after Ctrl-C or SIGTERM: take the ranks along, and let them clean up
                if process.poll() is None:
                    process.terminate()
