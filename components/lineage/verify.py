"""Is everything that a version was made of still what it was? Whatever can be reached, or generated, is hashed again."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from components.artifacts.folders import FILE, Manifest, combined_digest, content_digest, content_without, file_digest
from components.artifacts.provenance import is_remote
from components.errors import StageError
from components.lineage.tree import Node
from components.storage import hub, transfer
from components.tokenize.read import read_source

State = Literal["same", "changed", "gone", "out of reach"]
DECISIVE = ("stage", "parameters", "inputs", "code", "digest", "effective")
"""What the manifests of two makings of the same have in common."""
TAGS = {"evaluation": "digest.evaluation", "model": "digest.model", "data": "digest.data"}


@dataclass(frozen=True)
class Checked:
    """One thing that was looked at.  detail: what differs, or why it could not be looked at."""

    item: str
    state: State
    detail: str = ""


def verify_tree(version: ModelVersion, tree: Node) -> Iterator[Checked]:
    """Every file of every node, where it lay and as MLflow stores it, and that the nodes name each other by their digests."""
    yield from _chain(version, tree)
    nodes = {node.kind: node for node in tree.walk()}
    with tempfile.TemporaryDirectory() as folder:
        stored = {"evaluation": nodes["evaluation"].uri, "model": tree.uri}
        for kind, uri in stored.items():
            yield from _stored(nodes[kind], uri, Path(folder) / kind)
    for node in tree.walk():
        if node.kind not in ("version", "evaluation"):  # the evaluation has been fetched from where it lies
            yield from _in_place(node)


def _chain(version: ModelVersion, tree: Node) -> Iterator[Checked]:
    """The manifests, against themselves, against each other and against the version's tags."""
    for node in tree.walk():
        if not node.manifest:
            continue
        item = f"{node.kind}: manifest"
        known = {child.digest for child in node.children}
        expected = set(node.manifest["inputs"].values())
        if content_digest(node.manifest["files"]) != node.digest:
            yield Checked(item, "changed", "its digest is not that of its files")
        elif node.kind in TAGS and version.tags.get(TAGS[node.kind]) != node.digest:
            yield Checked(item, "changed", f"the version's tag {TAGS[node.kind]} names another digest")
        elif known != expected:
            yield Checked(item, "changed", "the manifests of its inputs are not those that it was made of")
        else:
            yield Checked(item, "same")
    for node in tree.walk():
        if not node.manifest and node.files and combined_digest(node.files) != node.digest:
            yield Checked(f"{node.kind}: list of files", "changed", "their digests do not make the digest that was recorded")


def _stored(node: Node, uri: str, folder: Path) -> Iterator[Checked]:
    """What MLflow holds of it."""
    folder.mkdir()
    try:
        fetched = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        yield Checked(f"{node.kind}: {uri}", "gone", " ".join(str(error).split())[:160])
        return
    if node.kind == "model":  # among the files that MLflow adds
        places = sorted(fetched.glob(f"artifacts/*/{FILE}"))
        if not places:
            yield Checked(f"model: {uri}", "gone", f"no artifacts/*/{FILE}")
            return
        fetched = places[0].parent
    yield from _files(node.kind, uri, fetched, _files_of(_made_again(node, _reader(fetched)) or node.manifest))


def _in_place(node: Node) -> Iterator[Checked]:
    """Where it lay when it was used."""
    item, place = f"{node.kind}: {node.uri}", Path(node.uri)
    if is_remote(node.uri):
        yield from _in_store(node)
        return
    if node.generator:
        yield from _generated(node)
        return
    if node.uri.startswith(hub.SCHEME):
        yield from _of_hub(node)
        return
    if not place.is_absolute():
        made = node.uri == "tiny"
        yield Checked(item, "same" if made else "out of reach", "made by the code" if made else "not on this file system")
        return
    if not place.exists():
        yield Checked(item, "gone")
        return
    folder = place if place.is_dir() else place.parent
    has_manifest = bool(node.manifest) and (folder / FILE).is_file()
    again = _made_again(node, _reader(folder)) if has_manifest else None
    files = _files_of(again) if again else node.files
    yield from _files(node.kind, node.uri if place.is_dir() else str(folder), folder, files)
    if has_manifest:
        yield _same_manifest(f"{item}/{FILE}", node, again)


def _generated(node: Node) -> Iterator[Checked]:
    """As `_in_place`, of what nobody wrote: made again. Only the generator that made it can say that it was changed."""
    made = node.generator
    again = read_source(made["task"], node.uri, num_sample_rows=made["num_rows"], seed=made["seed"])
    for finding in _compared(node.kind, node.uri, node.files, again.inputs.get):
        if finding.state != "same" and again.generator["code"] != made["code"]:
            yield Checked(finding.item, "out of reach", "the generator is another one by now")
        else:
            yield finding


def _in_store(node: Node) -> Iterator[Checked]:
    """As `_in_place`, in an S3 store: read to the last byte, and kept nowhere."""
    item = f"{node.kind}: {node.uri}"
    try:
        found = transfer.digests(node.uri, node.files)
        has_manifest = bool(node.manifest) and transfer.read_text(f"{node.uri}/{FILE}") is not None
        again = _made_again(node, lambda path: transfer.read_text(f"{node.uri}/{path}")) if has_manifest else None
    except StageError as error:
        yield Checked(item, "out of reach", str(error))
        return
    if not found:
        yield Checked(item, "gone")
        return
    folder, _, name = node.uri.rpartition("/")
    files = _files_of(again) if again else node.files
    yield from _compared(node.kind, folder if set(files) == {name} else node.uri, files, found.get)
    if has_manifest:
        yield _same_manifest(f"{item}/{FILE}", node, again)


def _of_hub(node: Node) -> Iterator[Checked]:
    """In the hub's cache. The hub itself is not asked: what a commit holds does not change there."""
    folder = hub.cached_folder(node.uri.removeprefix(hub.SCHEME), "dataset" if node.kind == "source" else "model")
    cached = {path: digest for path, digest in node.files.items() if (folder / path).is_file()}
    yield from _files(node.kind, node.uri, folder, cached)
    absent = len(node.files) - len(cached)
    if absent or not node.files:
        yield Checked(
            f"{node.kind}: {node.uri}", "out of reach", f"{absent} of {len(node.files)} files are not in the cache here"
        )


def _files(kind: str, uri: str, folder: Path, files: Mapping[str, str]) -> Iterator[Checked]:
    """Read every byte of every file."""
    return _compared(kind, uri, files, lambda path: file_digest(folder / path) if (folder / path).is_file() else None)


def _compared(kind: str, uri: str, files: Mapping[str, str], digest_of: Callable[[str], str | None]) -> Iterator[Checked]:
    for path, digest in tqdm(files.items(), desc=f"verify {kind}", unit=" files", disable=None, leave=False):
        item, found = f"{kind}: {uri}/{path}", digest_of(path)
        if found is None:
            yield Checked(item, "gone")
        elif found != digest:
            yield Checked(item, "changed", f"sha256 {found[:12]}, was {digest[:12]}")
        else:
            yield Checked(item, "same")


def _same_manifest(item: str, node: Node, there: Manifest | None) -> Checked:
    if there is None:
        return Checked(item, "changed", "not the manifest that lineage holds")
    return Checked(item, "same", "" if there == node.manifest else "of another making of the same content")


def _made_again(node: Node, read: Callable[[str], str | None]) -> Manifest | None:
    """The manifest that lies there, if it tells of the same content: that which lineage holds, or of another making, whose
    files differ in what is in no digest. None where it does not.
    """
    try:
        there: Manifest = json.loads(read(FILE) or "")
        if there == node.manifest:
            return there
        same = all(there.get(name) == node.manifest.get(name) for name in DECISIVE)
        same = same and there["files"].keys() == node.files.keys() and content_digest(there["files"]) == node.digest
        asides = {path: entry for path, entry in there["files"].items() if entry.get("aside")}
        contents = {path: content_without(read(path) or "", entry["aside"]) for path, entry in asides.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return there if same and all(contents[path] == entry["content"] for path, entry in asides.items()) else None


def _files_of(manifest: Manifest) -> dict[str, str]:
    return {path: entry["sha256"] for path, entry in manifest["files"].items()}


def _reader(folder: Path) -> Callable[[str], str]:
    return lambda path: (folder / path).read_text()
