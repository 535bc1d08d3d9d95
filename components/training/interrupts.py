"""SIGTERM, Ctrl-C and ranks that go away: a run ends between two updates, so that its state can be saved."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

import torch
from torch.distributed import DistBackendError

from components.errors import TryAgainError

OWN_FAULTS = ("device-side assert", "illegal memory access", "misaligned address", "invalid argument")
"""What CUDA says of a program that is wrong: the same comes again."""

Signalled = Callable[[], int]
"""Tells the first signal that came; 0 for none."""


@contextlib.contextmanager
def deferred_signals() -> Iterator[Signalled]:
    """Within the block SIGTERM and Ctrl-C do nothing but be remembered, and are raised when it ends."""
    came: list[int] = []
    previous = {}
    if threading.current_thread() is threading.main_thread():  # no other may
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a shell
                previous[number] = signal.signal(number, lambda signum, frame: came.append(signum))
    try:
        yield lambda: came[0] if came else 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if came:
        raise ended_by(came[0])


@contextlib.contextmanager
def ended_at_once() -> Iterator[None]:
    """Within the block SIGTERM ends the process: for a wait outside Python, which would keep its handlers waiting too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def ended_by(number: int) -> BaseException:
    """What the signal raises where it is not deferred."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextlib.contextmanager
def lost_ranks(signalled: Signalled) -> Iterator[None]:
    """Within the block, where another rank or this one's GPU is lost: what the signal of this rank raises, else TryAgainError.

    NCCL's watchdog may be faster: it aborts a rank that waits for one that has left.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        if isinstance(error, torch.AcceleratorError) and not any(word in said for word in OWN_FAULTS):
            raise TryAgainError(f"the GPU is lost: {said.splitlines()[0]}") from None
        if "/gloo/" not in said and not isinstance(error, DistBackendError):
            raise
        time.sleep(1)  # torchrun believes the record of the earliest second: let it be that of the rank that failed
        reason = said.partition("] ")[2].partition(". ")[0] or said.splitlines()[0]
        raise ended_by(signalled()) if signalled() else TryAgainError(f"another rank has left: {reason}") from None
