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

from components.artifacts.folders import FILE, combined_digest, content_digest, file_digest
from components.artifacts.provenance import is_remote
from components.errors import StageError
from components.lineage.tree import Node
from components.storage import hub, transfer
from components.tokenize.read import read_source

State = Literal["same", "changed", "gone", "out of reach"]
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
        elif version.tags.get(TAGS[node.kind]) != node.digest:
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
    yield from _files(node.kind, uri, fetched, node.files)


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
    yield from _files(node.kind, node.uri if place.is_dir() else str(folder), folder, node.files)
    if node.manifest and (folder / FILE).is_file():
        yield _same_manifest(f"{item}/{FILE}", (folder / FILE).read_text(), node)


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
        manifest = transfer.read_text(f"{node.uri}/{FILE}") if node.manifest else None
    except StageError as error:
        yield Checked(item, "out of reach", str(error))
        return
    if not found:
        yield Checked(item, "gone")
        return
    folder, _, name = node.uri.rpartition("/")
    yield from _compared(node.kind, folder if set(node.files) == {name} else node.uri, node.files, found.get)
    if manifest is not None:
        yield _same_manifest(f"{item}/{FILE}", manifest, node)


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


def _same_manifest(item: str, text: str, node: Node) -> Checked:
    try:
        same = json.loads(text) == node.manifest
    except ValueError:
        same = False
    return Checked(item, "same" if same else "changed", "" if same else "not the manifest that lineage holds")
