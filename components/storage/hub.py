"""The Hugging Face hub: names tied to commits, and the files of a commit, in the hub's own cache.

HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE mean what they mean to its library, which takes a while to import: it is
imported where it is used. `kind` is "model" or "dataset" throughout: the two have names of their own.
"""

import contextlib
import functools
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from components.artifacts.folders import file_digest
from components.errors import StageError, TryAgainError, UserError

Kind = Literal["model", "dataset"]
SCHEME = "hub:"
"""Before what came from there, in records."""
COMMIT = re.compile(r"[0-9a-f]{40}")
MAIN = "main"


@functools.lru_cache(maxsize=64)
def pinned(name: str, kind: Kind) -> str:
    """OWNER/NAME or OWNER/NAME@REVISION as OWNER/NAME@COMMIT: one request, or none where the revision is a whole commit.

    Where there is no network, the commit is the one that the cache knows by this name.

    Args:
        name: Its revision may be a branch, a tag or the first digits of a commit; without one it is the main branch.

    Raises:
        UserError: the hub does not give it, or there is no network and it is not cached.  TryAgainError: the hub is away.
    """
    repository, _, revision = name.partition("@")
    if COMMIT.fullmatch(revision):
        return name
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    with answered(name, kind):
        try:
            commit = HfApi().repo_info(repository, repo_type=kind, revision=revision or None).sha or ""
        except (httpx2.ConnectError, httpx2.ConnectTimeout, OfflineModeIsEnabled):
            ref = _cache_of(repository, kind) / "refs" / (revision or MAIN)
            if not ref.is_file():
                raise
            commit = ref.read_text().strip()
            print(f"{name}: no network, so commit {commit} as the cache has it", file=sys.stderr, flush=True)
        else:
            _remember(repository, kind, revision or MAIN, commit)
    return f"{repository}@{commit}"


@functools.lru_cache(maxsize=64)
def folder_of(name: str, kind: Kind, patterns: tuple[str, ...]) -> Path:
    """A folder with the files that match, of OWNER/NAME@COMMIT: those in the cache, and what is missing there is fetched.

    The folder may hold others too, of earlier calls, and need not be there where nothing matches.

    Args:
        patterns: For paths in the repository; a * stands for slashes too. Of a model, top-level files alone are meant.

    Raises:
        UserError: the hub does not give it, or there is no network and not all of it is cached.
        TryAgainError: the hub is away, or a file came damaged.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()
    name = pinned(name, kind)
    repository, _, commit = name.partition("@")
    others = ["*/*"] if kind == "model" else None
    folder, started = cached_folder(name, kind), time.monotonic()
    before = _files(folder)
    with answered(name, kind):
        snapshot_download(repository, repo_type=kind, revision=commit, allow_patterns=list(patterns), ignore_patterns=others)
        there = _files(folder)
        for path in there:
            if any(fnmatch(path, pattern) for pattern in patterns):
                _check(folder / path, name)
    if new := [path for path in there if path not in before]:
        megabytes, seconds = sum((folder / path).stat().st_size for path in new) / 1e6, time.monotonic() - started
        print(f"fetched {SCHEME}{name}: {len(new)} files, {megabytes:.1f} MB in {seconds:.1f} s", flush=True)
    return folder


def cached_folder(name: str, kind: Kind) -> Path:
    """Where the cache has, or would have, the files of OWNER/NAME@COMMIT."""
    repository, _, commit = name.partition("@")
    return _cache_of(repository, kind) / "snapshots" / commit


def names_in(name: str, kind: Kind) -> list[str]:
    """The paths of OWNER/NAME@COMMIT, as far as they are known without a request."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    repository, _, commit = name.partition("@")
    try:
        return [file.path for file in get_cached_repo_tree(repository, repo_type=kind, revision=commit)]
    except CachedRepoTreeNotFoundError:
        return sorted(_files(cached_folder(name, kind)))


def _cache_of(repository: str, kind: Kind) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / "--".join((f"{kind}s", *repository.split("/")))


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _remember(repository: str, kind: Kind, revision: str, commit: str) -> None:
    """Where the library looks too, for a time without a network."""
    ref = _cache_of(repository, kind) / "refs" / revision
    unfinished = ref.with_name(f".{ref.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # a cache that is mounted to be read
        ref.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(commit)
        os.replace(unfinished, ref)


def _check(path: Path, name: str) -> None:
    """TryAgainError where the bytes are not those that the hub names the file by; it is fetched again then."""
    if not path.is_symlink():  # a cache on a file system that has no links
        return
    blob = path.parent / path.readlink()  # may be a link itself, to where all repositories share their files
    if len(blob.name) == 64:  # of a large file: its sha256
        same = file_digest(path) == blob.name
    elif len(blob.name) == 40:  # of a small one: git's own; some mirrors name the plain sha1
        content = path.read_bytes()
        digests = (hashlib.sha1(it, usedforsecurity=False) for it in (b"blob %d\0" % len(content) + content, content))
        same = blob.name in [digest.hexdigest() for digest in digests]
    else:
        return  # a mirror with names of its own
    if not same:
        for damaged in (path.resolve(), blob, path):
            damaged.unlink(missing_ok=True)
        raise TryAgainError(f"{SCHEME}{name}: {path.name} came damaged and was deleted: try again")


# --- what goes wrong ---


@contextmanager
def answered(name: str, kind: Kind) -> Iterator[None]:
    """Within the block, what goes wrong between the library and the hub becomes one line that says what to do."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # no OSError where there is no network
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it would tell of each try
    try:
        yield
    except StageError:
        raise
    except (OSError, ValueError, HTTPError) as error:
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        raise _refused(name, kind, cause) from None


def _refused(name: str, kind: Kind, error: BaseException) -> UserError | TryAgainError:
    import httpx2
    from huggingface_hub import constants, errors, get_token

    repository, _, revision = name.partition("@")
    place = urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]
    option = "--model a folder" if kind == "model" else "--source a folder"
    what = f"cannot load model '{name}' (no such folder here, so taken as a hub id)"
    if kind == "dataset":
        what = f"cannot find {name} on the hub"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    token = "set HF_TOKEN" if not get_token() else "check HF_TOKEN"
    if isinstance(error, errors.HFValidationError):
        return UserError(f"{what}: it is no OWNER/NAME: mend it, or give {option}")
    if isinstance(error, errors.GatedRepoError):
        return UserError(f"{what}: it is gated: ask for access at {place}/{repository}, then {token} to one of that account")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{what}: it has no revision '{revision}': give a branch, a tag or a commit of it")
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return UserError(f"{what}: {place} has none of that name for us: {token} if it is private, or give {option}")
    if status >= 500 or status in (408, 429):
        return TryAgainError(f"{what}: {place} failed with {status}")
    if isinstance(error, httpx2.ProxyError):
        return UserError(f"{what}: the proxy in HTTPS_PROXY lets nobody through ({_reason(error)})")
    if isinstance(error, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, httpx2.ConnectError)):
        offline = constants.is_offline_mode()
        why = "HF_HUB_OFFLINE is set" if offline else f"{place} cannot be reached ({_reason(error)})"
        mend = "unset it, or " if offline else ""
        where = constants.HF_HUB_CACHE
        return UserError(f"{what}: {why}, and {where} has not all of it: {mend}fill that cache, or give {option}")
    if isinstance(error, httpx2.TransportError):
        return TryAgainError(f"{what}: {place} does not answer: {_reason(error)}")
    if isinstance(error, OSError) and error.filename:
        return UserError(f"{what}: {error.strerror}: {error.filename}: HF_HOME names where it is kept")
    if "Consistency check failed" in str(error):
        return TryAgainError(f"{what}: a file came damaged: {_reason(error)}")
    return UserError(f"{what}: {_reason(error)}; or give {option}")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
