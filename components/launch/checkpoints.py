"""Checkpoints of a training job, between a node's folder and the store: what outlives the node, and the run, that wrote them.

URI/update-00000120/   a checkpoint, as it was here: a folder or a file
URI/latest             the name of the newest that is whole
URI/owner              the job that stores them, and when it last said so

URI is the same for all that train the same. A job that finds another one at it keeps its own, at URI.JOB.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.errors import StageError
from components.launch.repeated import repeated
from components.storage import transfer

LATEST = "latest"
OWNER = "owner"
SECONDS = 5.0
"""Between two looks at the folder."""
SIGN_SECONDS = 20.0
"""Between two signs of life of an owner. After three times as many without one it is taken for dead."""


@contextmanager
def synced(uri: str, folder: Path, is_elastic: bool, job: str = "") -> Iterator[None]:
    """The newest checkpoint of the store is in `folder` when the block begins; what appears there meanwhile is stored.

    What cannot be moved is said, and tried again; it stops no training. If the block fails, the last checkpoint is stored too,
    and the place is left to whoever trains the same next.

    Args:
        is_elastic: Also fetch what other nodes store meanwhile: after one of them is lost, any may have to go on from it.
        job: All nodes of a job have one place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = Kept(uri, job, folder)
    _reported(kept.choose)

    def look() -> None:
        _reported(kept.store)
        if is_elastic:
            _reported(kept.fetch)

    try:
        with repeated(kept.sign, SIGN_SECONDS):
            _reported(kept.fetch)
            try:
                with repeated(look, SECONDS):
                    yield
            except BaseException:
                _reported(kept.store)
                raise
    except BaseException:
        _reported(kept.leave)
        raise


def forget(uri: str, job: str) -> None:
    """Nobody has to go on from this job's checkpoints any more. Another's stay."""
    if _owner(uri) in ("", job):
        transfer.remove(uri)
    transfer.remove(_own(uri, job))


def sweep(uri: str, seconds: float) -> list[str]:
    """Delete the folders below `uri`, each of one training, in which nothing was written for so long. Returns their names."""
    newest: dict[str, float] = {}
    for file, written in transfer.times(uri).items():
        folder, _, rest = file.partition("/")
        if rest:
            newest[folder] = max(written, newest.get(folder, 0.0))
    old = sorted(folder for folder, written in newest.items() if time.time() - written > seconds)
    for folder in old:
        transfer.remove(f"{uri.rstrip('/')}/{folder}")
    return old


@dataclass
class Kept:
    """A job's checkpoints.  shared: where all look.  uri: where they are.  known: the one that is there, by its name."""

    shared: str
    job: str
    folder: Path
    uri: str = ""
    known: str = ""

    def choose(self) -> None:
        """A place: where this job has been before, or where all look if no other job is there."""
        self.uri = self.shared
        if transfer.read_text(f"{_own(self.shared, self.job)}/{LATEST}"):
            self.uri = _own(self.shared, self.job)
        elif self._is_in_use():
            self._go_aside()
        else:
            transfer.write_text(f"{self.shared}/{OWNER}", self._signature())

    def sign(self) -> bool:
        """Say that this job is at its place. False where another one is."""
        if self.uri == self.shared:
            if _owner(self.shared) not in ("", self.job):
                return False
            transfer.write_text(f"{self.shared}/{OWNER}", self._signature())
        return True

    def leave(self) -> None:
        if self.uri == self.shared and _owner(self.shared) == self.job:
            transfer.remove(f"{self.shared}/{OWNER}")

    def fetch(self) -> None:
        """The store's newest, if it is another than the known one."""
        latest = transfer.read_text(f"{self.uri}/{LATEST}") or self.known
        if latest != self.known and not (self.folder / latest).exists():
            transfer.fetch(f"{self.uri}/{latest}", self.folder / latest)
        self.known = latest

    def store(self) -> None:
        """The folder's newest, if it is another than the known one, which goes."""
        with tempfile.TemporaryDirectory(dir=self.folder.parent) as beside:  # the training deletes old ones when it likes
            try:
                newest = max(
                    (path for path in self.folder.iterdir() if not path.name.startswith(".")),
                    key=lambda path: path.stat().st_mtime,
                    default=None,
                )
                if newest is None or newest.name == self.known:
                    return
                copy = Path(beside) / newest.name
                if newest.is_dir():
                    shutil.copytree(newest, copy, copy_function=os.link)
                else:
                    os.link(newest, copy)
            except (FileNotFoundError, shutil.Error):  # it has just done so: there is a newer one at the next look
                return
            if not self.sign():
                self._go_aside()
            transfer.store(copy, f"{self.uri}/{newest.name}")
        transfer.write_text(f"{self.uri}/{LATEST}", newest.name)
        if self.known:
            transfer.remove(f"{self.uri}/{self.known}")
        self.known = newest.name

    def _is_in_use(self) -> bool:
        """Whether another job is at the shared place: one that was killed has left its name there, and gives no sign."""
        text = transfer.read_text(f"{self.shared}/{OWNER}")
        waited = 0.0
        while _owner_in(text) not in ("", self.job):
            if waited >= 3 * SIGN_SECONDS:
                return False
            time.sleep(SIGN_SECONDS / 4)
            waited += SIGN_SECONDS / 4
            before, text = text, transfer.read_text(f"{self.shared}/{OWNER}")
            if text != before and _owner_in(text) not in ("", self.job):
                return True
        return False

    def _go_aside(self) -> None:
        self.uri, self.known = _own(self.shared, self.job), ""
        who = _owner(self.shared) or "another job"
        print(f"checkpoint: {who} trains the same, with {self.shared}: this job's checkpoints go to {self.uri}", flush=True)

    def _signature(self) -> str:
        return f"{self.job} {datetime.now(UTC).isoformat()}"


def _own(uri: str, job: str) -> str:
    return f"{uri}.{job}"


def _owner(uri: str) -> str:
    """'' where there is none."""
    return _owner_in(transfer.read_text(f"{uri}/{OWNER}"))


def _owner_in(text: str | None) -> str:
    return (text or "").partition(" ")[0]


def _reported(move: Callable[[], None]) -> None:
    try:
        move()
    except (StageError, OSError) as error:
        print(f"checkpoint: {error}", flush=True)
