"""What came from a piece of data, a model or a file: the way down the tree."""

import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from tqdm import tqdm

from components.artifacts.folders import FILE, file_digest
from components.artifacts.provenance import is_remote
from components.errors import UserError
from components.lineage.tree import tree_of
from components.storage import transfer
from components.tracking.runs import reachable
from components.tracking.server import use_server

SHORTEST = 8


def digests_of(digest_or_path: str) -> set[str]:
    """What to look for: the digest itself, that of a file, that of one of our folders, or those of all files of another folder.

    A file or folder may be in an S3 store.

    Raises:
        UserError: neither a digest nor a path.
    """
    if is_remote(digest_or_path):
        if manifest := transfer.read_text(f"{digest_or_path}/{FILE}"):
            return {json.loads(manifest)["digest"]}
        if found := transfer.digests(digest_or_path):
            return set(found.values())
        raise UserError(f"there is nothing at {digest_or_path}")
    path = Path(digest_or_path)
    if path.is_file():
        return {file_digest(path)}
    if (path / FILE).is_file():
        return {json.loads((path / FILE).read_text())["digest"]}
    if path.is_dir():
        return {file_digest(file) for file in path.rglob("*") if file.is_file()}
    if len(digest_or_path) >= SHORTEST and not set(digest_or_path) - set("0123456789abcdef"):
        return {digest_or_path}
    raise UserError(f"'{digest_or_path}' is neither a file or folder here nor a digest ({SHORTEST} or more of its hex digits)")


def find_impact(wanted: set[str]) -> Iterator[tuple[ModelVersion, str]]:
    """Every version that has one of the digests in its tree, and where.

    Args:
        wanted: Digests, or their beginnings.
    """
    use_server()
    client = mlflow.MlflowClient()
    for version in tqdm(_all_versions(client), desc="versions", unit="", disable=None, leave=False):
        try:
            tree = tree_of(client, version)
        except UserError:
            continue  # not ours, or its run is gone
        for node in tree.walk():
            named = {node.digest: f"{node.kind} {node.uri}"}
            named |= {digest: f"{node.kind} {node.uri}/{path}" for path, digest in node.files.items()}
            if found := [place for digest, place in named.items() if digest and digest.startswith(tuple(wanted))]:
                yield client.get_model_version(version.name, version.version), found[0]
                break


def _all_versions(client: mlflow.MlflowClient) -> Iterator[ModelVersion]:
    token = None
    while True:
        with reachable():
            page = client.search_model_versions(max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
