"""What a model version was made of, down to the raw files: read from its tags and from the manifest stored with it.

The evaluation's manifest holds those of the model and the data, and theirs name their inputs' files. Each names its inputs by
the digest of their content, so the tree can be checked against itself, and against whatever of it is still there. No database.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.artifacts.folders import FILE, Manifest
from components.errors import UserError
from components.registry.fetching import EVALUATION, find_version
from components.tracking.runs import reachable
from components.tracking.server import use_server

KINDS = {"evaluate": "evaluation", "train": "model", "tokenize": "data", "pretrain": "pre-trained model", "corpus": "corpus"}


@dataclass(frozen=True)
class Node:
    """Something that a version was made of, and what that was made of in its turn."""

    kind: str
    digest: str
    uri: str
    """Where it lay when it was used."""
    files: dict[str, str] = field(default_factory=dict)
    """Path -> sha256."""
    manifest: Manifest = field(default_factory=dict)
    """Of what a stage of ours wrote; else empty."""
    generator: dict[str, Any] = field(default_factory=dict)
    """Of generated data, what made them; else empty."""
    cached: bool = False
    """An earlier pipeline run made it than the one that registered the version."""
    children: tuple["Node", ...] = ()

    def walk(self) -> Iterator["Node"]:
        """This node and all below it, each content once."""
        seen: set[tuple[str, str, str]] = set()
        waiting = [self]
        while waiting:
            node = waiting.pop(0)
            if (node.kind, node.digest, node.uri) not in seen:
                seen.add((node.kind, node.digest, node.uri))
                yield node
                waiting = [*node.children, *waiting]

    def as_dict(self) -> dict[str, Any]:
        facts = {"kind": self.kind, "digest": self.digest, "uri": self.uri, "cached": self.cached, "files": self.files}
        if self.manifest:
            facts |= {name: self.manifest[name] for name in ("stage", "parameters", "code", "versions", "made_by", "seconds")}
        if self.generator:
            facts["generator"] = self.generator
        return {**facts, "made_of": [child.as_dict() for child in self.children]}


def read_tree(model_uri: str) -> tuple[ModelVersion, Node]:
    """The version, and the tree of what it was made of.

    Args:
        model_uri: models:/NAME/VERSION or models:/NAME@ALIAS.

    Raises:
        UserError: no such version, or one that components.register did not make.
    """
    use_server()
    client = mlflow.MlflowClient()
    with reachable():
        version = find_version(client, model_uri)
    return version, tree_of(client, version)


def tree_of(client: mlflow.MlflowClient, version: ModelVersion) -> Node:
    """As `read_tree`."""
    name = f"models:/{version.name}/{version.version}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            if "digest.evaluation" not in version.tags:
                raise UserError(f"{name} was not made by components.register: it has no lineage")
            path = client.download_artifacts(str(version.run_id), f"{EVALUATION}/{FILE}", folder)
            manifest = json.loads(Path(path).read_text())
        except (MlflowException, OSError, ValueError) as error:
            raise UserError(
                f"the lineage of {name} cannot be read from its run: {' '.join(str(error).split())[:160]}"
            ) from None
    run_id = version.tags.get("kfp.pipeline_run_id", "")
    evaluation = _node_of(manifest, f"runs:/{version.run_id}/{EVALUATION}", run_id)
    return Node("version", version.tags["digest.registered"], name, children=(evaluation,))


def _node_of(manifest: Manifest, uri: str, run_id: str) -> Node:
    made_for = manifest["made_by"].get("pipeline_run_id", "")
    children = []
    for name, origin in manifest["origins"].items():
        if "manifest" in origin:
            children.append(_node_of(origin["manifest"], origin["uri"], run_id))
        else:
            kind = "base model" if name == "model" else name
            generator = origin.get("generator", {})
            made = (_node_of(origin["made"], origin["uri"], run_id),) if "made" in origin else ()
            digest = manifest["inputs"][name]
            children.append(Node(kind, digest, origin["uri"], origin["files"], generator=generator, children=made))
    return Node(
        KINDS[manifest["stage"]],
        manifest["digest"],
        uri,
        {path: entry["sha256"] for path, entry in manifest["files"].items()},
        manifest,
        cached=bool(run_id) and made_for != run_id,
        children=tuple(children),
    )
