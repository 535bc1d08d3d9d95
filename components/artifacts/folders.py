"""Directories that appear whole or not at all, each with a manifest of what is in it and what it came from.

    {"schema": 1, "stage": "tokenize", "parameters": {...}, "inputs": {name: digest}, "code": digest,
     "files": {path: {"sha256": ..., "bytes": ...}}, "digest": ..., "seconds": ..., "versions": {...},
     "origins": {name: where the input lay, and its manifest}, "made_by": {...}}

`digest` is the sha256 over the sorted file digests: it names the content, and is what lineage is made of. The same content has
the same digest: what tells of this one making alone, such as seconds, is not in it. A file's entry then has "content" besides,
which counts in place of its sha256: '' for a file that does not count, a digest of the rest for JSON with a key ("aside") that
does not. `effective` and `timings`, of a training, say what took effect and how long it took. A manifest holds the manifests of
its inputs, so that the last one of a pipeline tells of all of it.

Where STAGE_CACHE names a folder, every finished directory is known there by all that decided it, and a stage that would make
the same again takes its files instead.
"""

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.artifacts.code import PROJECT, imported_by, sources_of
from components.artifacts.provenance import Origin, made_by, minor_python, uri_of, versions
from components.errors import UserError

FILE = "manifest.json"
CACHE = "STAGE_CACHE"
WRITES = {"checkpoint": "train"}
"""What is named otherwise than the stage that writes it; what follows a blank, as in "tokenize --part", says how it writes."""

Manifest = dict[str, Any]


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=4096)
def _digest(path: Path, size: int, changed: int, inode: int) -> str:
    """Within a process a file that was not touched is read once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def combined_digest(digests: Mapping[str, str]) -> str:
    """sha256 over `name digest` lines in the order of the names."""
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


@functools.cache
def code_digest(stage: str) -> str:
    """Digest of the source that decides what a stage writes: components.STAGE.stage, what that imports, their templates."""
    sources = sources_of(f"components.{stage}.stage")
    templates = {template for source in sources for template in source.parent.glob("*.j2")}
    return combined_digest({path.relative_to(PROJECT).as_posix(): file_digest(path) for path in sources | templates})


@functools.cache
def libraries_of(stage: str) -> dict[str, str]:
    """Versions of Python and of the libraries that decide what a stage writes: those that components.STAGE.stage imports, by
    itself or through what it imports of this project.
    """
    return versions(imported_by(f"components.{WRITES.get(stage) or stage.partition(' ')[0]}.stage"))


def content_digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The digest of a manifest, from what it says of its files."""
    contents = {name: entry.get("content", entry["sha256"]) for name, entry in files.items()}
    return combined_digest({name: content for name, content in contents.items() if content})


def content_without(text: str, key: str) -> str:
    """The digest of a JSON object without one of its keys."""
    kept = {name: value for name, value in json.loads(text).items() if name != key}
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A stage's output directory, and all that decides what will be in it.

    inputs: name -> digest.
    reusable: the cache may know it.
    aside: file -> the key of the JSON in it that tells of this one making alone, or '' where all of the file does.
    record: a JSON file of which the manifest repeats `took_effect` and `timings`.
    """

    path: Path
    stage: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]
    origins: Mapping[str, Origin] = field(default_factory=dict)
    reusable: bool = True
    aside: Mapping[str, str] = field(default_factory=dict)
    record: str = ""

    @property
    def key(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "parameters": json.loads(json.dumps(self.parameters, default=str)),
            "inputs": dict(self.inputs),
            "code": code_digest(WRITES.get(self.stage) or self.stage.partition(" ")[0]),
        }

    @property
    def identity(self) -> str:
        """sha256 over the key and the versions of the libraries that matter, in hex."""
        decisive = {**self.key, "versions": libraries_of(self.stage)}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def cached(self) -> Manifest | None:
        """The manifest of what is there, or of what an earlier run left in the cache, if it is this very result; else None.

        Raises:
            UserError: the directory holds something else, or is damaged.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return self._reused()
        mend = "choose another --output-dir or delete it"
        if not (self.path / FILE).is_file():
            raise UserError(f"{self.path} exists and is no output of ours: {mend}")
        manifest = read_manifest(self.path, self.stage)
        if different := [name for name, value in self.key.items() if manifest[name] != value]:
            raise UserError(f"{self.path} exists and was made with other {', '.join(different)}: {mend}")
        if unnamed := [name for name, digest in self.inputs.items() if not digest]:
            raise UserError(f"{self.path} exists, and what {', '.join(unnamed)} was then cannot be told: {mend}")
        libraries, before = libraries_of(self.stage), minor_python(manifest["versions"])
        if other := [f"{name} {before.get(name, '?')}, not {it}" for name, it in libraries.items() if before.get(name) != it]:
            raise UserError(f"{self.path} exists and was made with {', '.join(other)}: {mend}")
        print(f"{self.stage}: cached in {self.path}", flush=True)
        return manifest

    @property
    def place(self) -> Path | None:
        """Where the cache has it: the same path whichever run made it. None where it has not."""
        entry = self._entry()
        return entry if entry and entry.is_dir() else None

    def manifest(self) -> Manifest:
        """What was just built says of itself."""
        manifest: Manifest = json.loads((self.path / FILE).read_text())
        return manifest

    @contextmanager
    def building(self) -> Iterator[Path]:
        """A folder to fill, beside the final one; it takes its name when the block ends well, else it is removed."""
        started = time.monotonic()
        with self._unfinished() as folder:
            yield folder
            _write_manifest(folder, self, time.monotonic() - started)
            mode = (folder / FILE).stat().st_mode
            for path in folder.rglob("*"):
                if path.is_file():  # safetensors writes for the owner alone, whatever the umask says
                    path.chmod(mode)
        if entry := self._entry():
            link = entry.with_name(f".{entry.name}.{os.getpid()}")
            link.symlink_to(os.path.relpath(self.path.resolve(), entry.parent))
            os.replace(link, entry)

    @contextmanager
    def _unfinished(self) -> Iterator[Path]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        folder.mkdir()
        try:
            yield folder
            os.replace(folder, self.path)  # onto nothing, or an empty directory
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _entry(self) -> Path | None:
        """Where the cache knows this result, if there is a cache and all inputs have digests."""
        if CACHE not in os.environ or not self.reusable or not all(self.inputs.values()):
            return None
        folder = Path(os.environ[CACHE])
        folder.mkdir(parents=True, exist_ok=True)
        return folder.resolve() / self.identity

    def _reused(self) -> Manifest | None:
        """Take what the cache has, as hard links where the file system allows."""
        entry = self._entry()
        if entry is None or not entry.is_dir() or "WORLD_SIZE" in os.environ:  # ranks would race: who starts them has looked
            return None
        try:
            manifest = read_manifest(entry, self.stage)
        except UserError:  # removed or damaged since: make it again
            return None
        with self._unfinished() as folder:
            shutil.copytree(entry, folder, copy_function=link, dirs_exist_ok=True)
        print(f"{self.stage}: cached, from {entry.resolve()}", flush=True)
        return manifest


def link(source: str | Path, target: str | Path) -> None:
    """The same file under another name too; a copy, on another file system."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def read_manifest(folder: Path, stage: str) -> Manifest:
    """The manifest of what `stage` wrote to `folder`, after checking every file against it.

    Raises:
        UserError: no such folder, another stage's folder, or a file that is missing or differs.
    """
    try:
        manifest: Manifest = json.loads((folder / FILE).read_text())
    except OSError:
        raise UserError(f"{folder} has no {FILE}: give the folder that components.{stage} wrote") from None
    except ValueError:
        raise UserError(f"{folder / FILE} is damaged: run components.{stage} again") from None
    if manifest.get("stage") != stage:
        raise UserError(f"{folder} was written by components.{manifest.get('stage')}, not by components.{stage}")
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing: run components.{stage} again")
        if path.stat().st_size != entry["bytes"] or file_digest(path) != entry["sha256"]:
            raise UserError(f"{path} is not the file that components.{stage} wrote: run it again")
    return manifest


def artifact_metadata(manifest: Manifest) -> dict[str, str]:
    """What a KFP artifact says of the stage's output: the lineage that needs no other store."""
    inputs = {f"input_{name}": digest for name, digest in manifest["inputs"].items()}
    return {"digest": manifest["digest"], "code": manifest["code"], **inputs}


def asked(manifest: Manifest) -> dict[str, Any]:
    """The parameters of which something else took effect, as they were given. Nobody asked for 0, which leaves it to a rule."""
    effective = manifest.get("effective", {})
    given = {name: value for name, value in manifest["parameters"].items() if value and name in effective}
    return {name: value for name, value in given.items() if effective[name] != value}


def origin(folder: Path, manifest: Manifest) -> Origin:
    """An output of ours as another stage's input."""
    return {"uri": uri_of(folder), "manifest": manifest}


def _write_manifest(folder: Path, artifact: Artifact, seconds: float) -> None:
    files: dict[str, dict[str, Any]] = {
        path.relative_to(folder).as_posix(): {"sha256": file_digest(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    for name in artifact.aside.keys() & files.keys():
        key = artifact.aside[name]
        files[name] |= {"aside": key, "content": content_without((folder / name).read_text(), key) if key else ""}
    manifest = {
        "schema": 1,
        **artifact.key,
        "files": files,
        "digest": content_digest(files),
        "seconds": round(seconds, 3),
        **_of_record(folder / artifact.record if artifact.record else None),
        "versions": versions(),
        "origins": dict(artifact.origins),
        "made_by": made_by(),
    }
    (folder / FILE).write_text(json.dumps(manifest, indent=1) + "\n")


def _of_record(path: Path | None) -> dict[str, Any]:
    if path is None or not path.is_file():
        return {}
    record = json.loads(path.read_text())
    return {"effective": record["took_effect"], "timings": record["timings"]}
