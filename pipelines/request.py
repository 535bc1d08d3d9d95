"""What is sent to Kubeflow to start a run, looked at before it is sent."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components import parameters
from components.errors import UserError

TOO_LONG = 60_000
"""Characters. Seen on Kubeflow 2.17: with so many it fails without a word; 12,000 work."""


@dataclass(frozen=True)
class Request:
    """A compiled pipeline, and the parameters that are not left at their defaults."""

    file: Path
    spec: dict[str, Any]
    parameters: dict[str, Any]
    experiment: str
    run_name: str
    service_account: str | None

    def summary(self) -> dict[str, Any]:
        pipeline = {"name": self.spec["pipelineInfo"]["name"], "sha256": hashlib.sha256(self.file.read_bytes()).hexdigest()}
        shown = {"experiment": self.experiment, "run_name": self.run_name, "service_account": self.service_account}
        return {"pipeline": pipeline, **shown, "parameters": self.parameters}


def check(request: Request) -> None:
    """Refuse now what a stage would refuse when it has a pod.

    Raises:
        UserError: a parameter that the compiled pipeline does not take or needs and is not given; or one of another type, or
            too long.
    """
    inputs = request.spec["root"]["inputDefinitions"]["parameters"]
    if unknown := [name for name in request.parameters if name not in inputs]:
        raise UserError(f"the compiled pipeline has no {', '.join(unknown)}: compile it from this code")
    if lacking := [name for name, it in inputs.items() if not it.get("isOptional") and name not in request.parameters]:
        raise UserError(f"the compiled pipeline needs {', '.join(lacking)}")
    for name, value in request.parameters.items():
        parameters.check(name, value)
        if (length := len(value if isinstance(value, str) else json.dumps(value))) >= TOO_LONG:
            raise UserError(f"{name} has {length} characters: Kubeflow takes fewer than {TOO_LONG} of a parameter")


def spec_of(file: Path) -> dict[str, Any]:
    """The specification in a compiled pipeline's file."""
    spec: dict[str, Any] = next(iter(yaml.safe_load_all(file.read_text())))
    return spec
