"""torchrun, as it is, that says a little more: of ranks that were killed from outside, and nothing of a SIGTERM to itself."""

import os
from pathlib import Path

from components import errors

AT_ONCE = 10
"""Seconds within which the peers of a rank that was killed fail too. torchrun kills what does not end after a failure later."""


def main() -> None:
    """torchrun's command line. Ends with 1 where ranks failed: the error record tells how."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun()
    except SignalException as stop:
        raise SystemExit(128 + stop.sigval) from None
    except ChildFailedError as error:  # the failing rank has shown its traceback
        first = min(failure.timestamp for failure in error.failures.values())
        for rank, failure in error.failures.items():
            if -failure.exitcode in errors.KILLERS and failure.timestamp <= first + AT_ONCE:
                record = os.environ.get("TORCHELASTIC_ERROR_FILE")
                killed = errors.killed(f"rank {rank}", -failure.exitcode)
                errors.write_record(Path(record) if record else None, killed.exit_code, str(killed))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
