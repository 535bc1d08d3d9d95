"""What training will write, said without importing torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.artifacts import Artifact, read_manifest
from components.models import model_files_digest


def plan(arguments: Mapping[str, Any]) -> Artifact:
    """arguments: all of components.train.stage.train."""
    data = read_manifest(Path(arguments["data_dir"]), "tokenize")
    parameters = {name: value for name, value in arguments.items() if name not in ("data_dir", "output_dir")}
    inputs = {"data": data["digest"], "model": model_files_digest(arguments["model"])}
    return Artifact(Path(arguments["output_dir"]), "train", parameters, inputs)
