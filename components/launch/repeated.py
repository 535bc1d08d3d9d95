"""Looks at something again and again, while something else goes on."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from components.errors import StageError


@contextmanager
def repeated(look: Callable[[], object], seconds: float) -> Iterator[None]:
    """Within the block, in a thread; what goes wrong goes wrong once, and the next look is another."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            with contextlib.suppress(StageError, OSError):
                look()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
