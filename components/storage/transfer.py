"""Folders and files between here and a store: s3:// (or minio://, the same store), file:// and plain paths.

What is fetched appears whole or not at all. What is stored gets its manifest.json last, so that whoever finds a manifest finds
what it tells of. Every byte is checked by a digest, and both go on where an earlier try was cut off.
"""

import fcntl
import functools
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from components.artifacts.folders import FILE, combined_digest, file_digest
from components.artifacts.provenance import is_remote, uri_of
from components.errors import TryAgainError, UserError
from components.storage.places import UNFINISHED, Folder, Place, Progress, S3Folder, Stored
from components.storage.s3 import AT_ONCE, answered


@functools.lru_cache(maxsize=64)
def local(uri: str, cache: Path | None = None) -> Path:
    """`uri` as a path: itself, or fetched once to the cache (below HF_HOME, or the folder for temporary files).

    What is in the cache is named by its URI and its state in the store: another state is fetched anew.
    """
    if not is_remote(uri):
        return _path(uri)
    state = state_of(uri)
    root = cache or Path(os.environ.get("HF_HOME") or tempfile.gettempdir())
    target = root / f"fetched-{state[:12]}" / "s3" / uri_of(uri).removeprefix("s3://")
    if not target.exists():
        fetch(uri, target)
    return target


@functools.lru_cache(maxsize=64)
def state_of(uri: str) -> str:
    """A digest of the names, sizes and versions of what is in the store at `uri`; '' for what is not in a store."""
    if not is_remote(uri):
        return ""
    with _place(uri) as place:
        found = _found(place, uri)
    return combined_digest({name: f"{file.size} {file.version}" for name, file in found.items()})


def fetch(uri: str, target: Path) -> None:
    """What is at `uri`, a folder or a file, to `target`, which appears whole or not at all.

    After a failure the files that were whole stay beside it, and are not fetched again.

    Raises:
        UserError: there is nothing there, the store refuses, a file is not what was stored, or `target` is something else.
        TryAgainError: the store is away.
    """
    started = time.monotonic()
    with _place(uri) as place:
        found = _found(place, uri)
        text = place.read(FILE) if FILE in found else None
        wanted = _wanted(place, found, text)
        with _unfinished(target) as folder:
            if target.is_file() or (target.is_dir() and any(target.iterdir())):
                there = Folder(target).files()
                if there.keys() == wanted.keys() and all(_is(target / name, found[name], wanted[name]) for name in wanted):
                    return
                raise UserError(f"{target} exists and is not what is at {uri}: delete it, or fetch to another place")
            content = folder / "content"
            for name in Folder(content).files().keys() - wanted.keys():
                (content / name).unlink()
            missing = [name for name, digest in wanted.items() if not _is(content / name, found[name], digest)]

            def get(name: str, progress: Progress) -> None:
                path = content / name
                path.parent.mkdir(parents=True, exist_ok=True)
                place.get(name, path, progress)
                os.utime(path, (found[name].changed, found[name].changed))
                if not _is(path, found[name], wanted[name]):
                    path.unlink()
                    raise UserError(f"{place.name(name)} is not the file that was stored (its sha256 differs): make it again")

            sizes = {name: found[name].size for name in missing}
            _transfer(get, sizes, place, f"fetch {uri}")
            os.replace(content, target)  # onto nothing, or an empty directory
    _report(f"fetched {uri}", sizes, len(wanted), started)


def store(path: Path, uri: str) -> None:
    """A folder, or a file, to `uri`. A folder's manifest.json comes last, and one that tells of other files goes first.

    What is already there is left as it is; what only an earlier manifest named is deleted.

    Raises:
        UserError: the store refuses, or a file here is not what the manifest says.  TryAgainError: the store is away.
    """
    started = time.monotonic()
    files = {name: path / name for name in Folder(path).files()}
    if not files:
        raise UserError(f"there is nothing at {path} to store")
    text = files[FILE].read_bytes() if FILE in files else None
    listed = _manifest_digests(text)
    if listed is not None:
        del files[FILE]
    with _place(uri) as place, ThreadPoolExecutor(AT_ONCE) as pool:
        sha256 = dict(zip(files, pool.map(file_digest, files.values()), strict=True))
        if listed is not None and (damaged := sorted({*listed.items()} ^ {*sha256.items()})):
            raise UserError(f"{path / damaged[0][0]} is not what {path / FILE} says: make it again")
        found = place.files()
        old = place.read(FILE) if FILE in found else None

        def is_there(name: str) -> bool:
            same_size = name in found and found[name].size == files[name].stat().st_size
            return same_size and place.recorded(name) == sha256[name]

        there = [name for name, is_one in zip(files, pool.map(is_there, files), strict=True) if is_one]
        sizes = {name: files[name].stat().st_size for name in files if name not in there}
        stale = (set(_manifest_digests(old) or ()) & set(found)) - set(files)
        if _manifest_digests(old) is not None and (sizes or stale):
            place.delete(FILE)
        for name in stale:
            place.delete(name)

        def put(name: str, progress: Progress) -> None:
            place.put(files[name], name, sha256[name], progress)
            if file_digest(files[name]) != sha256[name]:
                raise UserError(f"{files[name]} has changed while it was stored: does something else write it?")
            if not place.holds(name, files[name].stat().st_size, sha256[name]):
                raise UserError(f"{place.name(name)} is not what was stored there: does something else write it?")

        _transfer(put, sizes, place, f"store {uri}")
        if text is not None and listed is not None and (sizes or stale or old != text):
            place.write(FILE, text)
    _report(f"stored {uri}", sizes, len(files), started)


def read_text(uri: str) -> str | None:
    """A small file; None where there is none."""
    with _place(uri) as place:
        content = place.read("")
        return None if content is None else content.decode()


def write_text(uri: str, text: str) -> None:
    """A small file, at once."""
    with _place(uri) as place:
        place.write("", text.encode())


def remove(uri: str) -> None:
    """A file, or a folder and all below it, its manifest first. Nothing happens where there is none.

    Raises:
        UserError: `uri` is a whole bucket or file system.
    """
    if not urlsplit(uri).path.strip("/"):
        raise UserError(f"{uri} is no place for one result: name a folder in it")
    with _place(uri) as place:
        for name in sorted(place.files(), key=lambda name: name != FILE):
            place.delete(name)
    if not is_remote(uri) and _path(uri).is_dir():
        shutil.rmtree(_path(uri))


def times(uri: str) -> dict[str, float]:
    """File -> when it was written, in seconds since 1970."""
    with _place(uri) as place:
        return {name: stored.changed for name, stored in place.files().items()}


def digests(uri: str, names: Collection[str] | None = None) -> dict[str, str]:
    """File -> sha256 of the bytes that are at `uri` now; nothing is kept here. A single file has its own name.

    Args:
        names: Of these alone; those that are not there are left out.
    """
    with _place(uri) as place, ThreadPoolExecutor(AT_ONCE) as pool:
        listed = {name or uri.rstrip("/").rpartition("/")[2]: name for name in place.files()}
        chosen = {shown: name for shown, name in listed.items() if names is None or shown in names}
        return dict(zip(chosen, pool.map(place.digest, chosen.values()), strict=True))


def check(uri: str) -> None:
    """Write, read and delete a small file below `uri`. Listing comes first: writing makes some stores create the bucket.

    Raises:
        UserError, TryAgainError: what does not work, and what to do.
    """
    probe, text = f"{uri.rstrip('/')}/check-{secrets.token_hex(8)}", secrets.token_hex(8)
    digests(probe)
    write_text(probe, text)
    if read_text(probe) != text:
        raise UserError(f"{uri} gives back other bytes than were written")
    remove(probe)
    if read_text(probe) is not None:
        raise UserError(f"{uri} does not delete what it is told to")


@contextmanager
def _place(uri: str) -> Iterator[Place]:
    """Where `uri` leads, and what goes wrong there in one line."""
    try:
        if not is_remote(uri):
            yield Folder(_path(uri))
            return
        with answered(uri):
            place, failed = S3Folder(uri), True
            try:
                yield place
                failed = False
            finally:
                place.close(cancel=failed)
    except OSError as error:
        if isinstance(error, (ConnectionError, TimeoutError)):
            raise TryAgainError(f"{uri}: {error}") from None
        raise UserError(f"{uri}: {error.strerror or error}: {error.filename or uri}") from None


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path) if uri.startswith("file://") else uri)


def _found(place: Place, uri: str) -> dict[str, Stored]:
    found = place.files()
    if not found:
        raise UserError(f"there is nothing at {uri}")
    return found


def _manifest_digests(text: bytes | None) -> dict[str, str] | None:
    """File -> sha256, of a manifest of ours; None for any other file of its name."""
    try:
        return {name: entry["sha256"] for name, entry in json.loads(text or b"")["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _wanted(place: Place, found: Mapping[str, Stored], text: bytes | None) -> dict[str, str]:
    """File -> sha256 that it must have; '' where nobody has recorded one."""
    listed = _manifest_digests(text)
    if listed is None or text is None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(found, pool.map(place.recorded, found), strict=True))
    if absent := sorted(set(listed) - set(found)):
        raise UserError(f"{place.name(absent[0])} is missing: {place.name(FILE)} tells of it; make it again")
    return {**listed, FILE: hashlib.sha256(text).hexdigest()}


def _is(path: Path, stored: Stored, digest: str) -> bool:
    """Whether it is that file: by its bytes, or where nobody has recorded their digest by size and time."""
    if not path.is_file() or path.stat().st_size != stored.size:
        return False
    return file_digest(path) == digest if digest else int(path.stat().st_mtime) == int(stored.changed)


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A folder beside `target`, for one process at a time; kept after a failure if something in it is worth it."""
    folder = target.with_name(f".{target.name}{UNFINISHED}")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            if target.exists() or not (folder / "content").exists():
                shutil.rmtree(folder, ignore_errors=True)


def _transfer(one: Callable[[str, Progress], None], sizes: Mapping[str, int], place: Place, what: str) -> None:
    """One file after the other, some at once; the first that fails ends the others."""
    hidden = None if sizes else True  # a bar on a terminal alone
    with (
        ThreadPoolExecutor(AT_ONCE) as pool,
        tqdm(desc=what, total=sum(sizes.values()), unit="B", unit_scale=True, disable=hidden, leave=False) as bar,
    ):
        try:
            for done in as_completed([pool.submit(one, name, bar.update) for name in sizes]):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            place.close(cancel=True)
            raise


def _report(done: str, sizes: Mapping[str, int], num_files: int, started: float) -> None:
    megabytes, seconds = sum(sizes.values()) / 1e6, time.monotonic() - started
    speed = f"{megabytes:.1f} MB in {seconds:.1f} s ({megabytes / seconds:.0f} MB/s)"
    there = f", {num_files - len(sizes)} were there already" if num_files > len(sizes) else ""
    print(f"{done}: {len(sizes)} files, {speed}{there}", flush=True)
