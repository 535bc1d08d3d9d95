"""MLflow may be away, and then it must not hide why a stage failed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow

IN_HASTE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""Some seconds in all, where MLflow's own seven retries take minutes: a pod that is told to end has half a minute left."""


@contextmanager
def in_haste(untold: str) -> Iterator[None]:
    """While another error is on its way: MLflow is not waited for, and what goes wrong in the block is a line of warning.

    Args:
        untold: What MLflow is told in the block.
    """
    before = {name: os.environ.get(name) for name in IN_HASTE}
    os.environ |= IN_HASTE
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        print(f"warning: MLflow at {mlflow.get_tracking_uri()} was not told {untold}: {reason}", file=sys.stderr, flush=True)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
