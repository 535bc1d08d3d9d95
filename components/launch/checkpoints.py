"""Checkpoints of a training job, between a node's folder and the store: what outlives the node that wrote them.

URI/update-00000120/   a checkpoint, as it was here: a folder or a file
URI/latest             the name of the newest that is whole
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from components.errors import StageError
from components.storage import transfer

LATEST = "latest"
SECONDS = 5.0
"""Between two looks at the folder."""


@contextmanager
def synced(uri: str, folder: Path, is_elastic: bool) -> Iterator[None]:
    """The newest checkpoint of the store is in `folder` when the block begins; what appears there meanwhile is stored.

    What cannot be moved is said, and tried again; it stops no training. If the block fails, the last checkpoint is stored too.

    Args:
        is_elastic: Also fetch what other nodes store meanwhile: after one of them is lost, any may have to go on from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = _reported(_fetch, uri, folder, "")
    ended = threading.Event()

    def look() -> None:
        nonlocal known
        while not ended.wait(SECONDS):
            known = _reported(_store, uri, folder, known)
            if is_elastic:
                known = _reported(_fetch, uri, folder, known)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    failed = True
    try:
        yield
        failed = False
    finally:
        ended.set()
        thread.join()
        if failed:
            _reported(_store, uri, folder, known)


def _reported(move: Callable[[str, Path, str], str], uri: str, folder: Path, known: str) -> str:
    try:
        return move(uri, folder, known)
    except (StageError, OSError) as error:
        print(f"checkpoint: {error}", flush=True)
        return known


def _fetch(uri: str, folder: Path, known: str) -> str:
    """The store's newest, if it is another than the `known` one. Returns its name."""
    latest = transfer.read_text(f"{uri}/{LATEST}") or known
    if latest != known and not (folder / latest).exists():
        transfer.fetch(f"{uri}/{latest}", folder / latest)
    return latest


def _store(uri: str, folder: Path, known: str) -> str:
    """The folder's newest, if it is another than the `known` one, which goes. Returns its name."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:  # the training deletes old ones when it likes
        try:
            newest = max(
                (path for path in folder.iterdir() if not path.name.startswith(".")),
                key=lambda path: path.stat().st_mtime,
                default=None,
            )
            if newest is None or newest.name == known:
                return known
            copy = Path(beside) / newest.name
            if newest.is_dir():
                shutil.copytree(newest, copy, copy_function=os.link)
            else:
                os.link(newest, copy)
        except (FileNotFoundError, shutil.Error):  # it has just done so: there is a newer one at the next look
            return known
        transfer.store(copy, f"{uri}/{newest.name}")
    transfer.write_text(f"{uri}/{LATEST}", newest.name)
    if known:
        transfer.remove(f"{uri}/{known}")
    return newest.name
