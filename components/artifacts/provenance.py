"""What an artifact was made of, and by what: the part of a manifest that lineage is read from.

Where the pieces lie may change and decides no content: none of this is in a digest or in a cache key.
"""

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import UserError

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "transformers": ("transformers",),
    "tokenizers": ("tokenizers", "transformers"),
    "safetensors": ("safetensors", "transformers"),
    "pyarrow": ("pyarrow",),
    "scikit-learn": ("sklearn",),
    "scipy": ("scipy",),
    "numpy": ("numpy",),
    "matplotlib": ("matplotlib",),
    "jinja2": ("jinja2",),
    "mlflow": ("mlflow",),
    "kfp": ("kfp",),
}
"""Library -> the modules that bring it to bear on what comes out."""
INJECTED: Mapping[str, str] = {
    "PIPELINE_RUN_ID": "pipeline_run_id",
    "PIPELINE_TASK_ID": "pipeline_task_id",
    "KFP_POD_NAME": "pod_name",
    "KFP_POD_UID": "pod_uid",
    "JOB_NAME": "job_name",
    "JOB_UID": "job_uid",
    "IMAGE": "image",
    "GIT_COMMIT": "commit",
}
"""Environment variable -> its name in a manifest: set by our components, by Kubeflow, by the launcher, by the image."""

REMOTE = ("s3://", "minio://")
MOUNTED = re.compile(r"(?:.*/fetched-[0-9a-f]{12})?/(?:s3|minio)/(.+)")
"""Where KFP mounts what is in a store, and where storage.transfer puts what it has fetched."""

Origin = dict[str, Any]
"""{"uri": where it lay, "manifest": its own} for an output of ours, {"uri": ..., "files": {path: sha256}} for other files, with
"made", its manifest, where these are some of the files of a model that was pre-trained here; for
generated data with "generator", what made them: {"by": in words, "code": its digest, "task", "num_rows", "seed"}."""


@dataclass(frozen=True)
class Tracking:
    """Where the runs of a pipeline's stages are recorded: the parameters of these names."""

    experiment: str
    tracking_uri: str


@dataclass(frozen=True)
class Iteration:
    """One iteration of a pipeline's loop.  name: no other of the loop has it.  params: what is its own, by name."""

    name: str
    params: Mapping[str, str] = field(default_factory=dict)


def is_remote(uri: str) -> bool:
    """Whether it is in an S3 store, and no path here. minio:// is the same store as s3://."""
    return uri.startswith(REMOTE)


def uri_of(path: str | Path) -> str:
    """Where it really lies: in the store, if it was mounted or fetched from there; else its path."""
    if is_remote(str(path)):
        return "s3://" + str(path).partition("://")[2].rstrip("/")
    absolute = Path(path).resolve().as_posix()
    mounted = MOUNTED.fullmatch(absolute)
    return f"s3://{mounted[1]}" if mounted else absolute


def pipeline_run_id() -> str:
    """Of the pipeline run that this process is a part of, which ties its stages together.

    An environment variable and no parameter, which would be another one in each run, so that Kubeflow's cache knew no step.

    Raises:
        UserError: nobody has set it.
    """
    if not (found := os.environ.get("PIPELINE_RUN_ID", "")):
        raise UserError("PIPELINE_RUN_ID is not set: give the id of the pipeline run that this step is a part of")
    return found


def generators_of(origins: Mapping[str, Origin]) -> list[str]:
    """What generated the data that something was made of, in words; nothing for real data."""
    found = set()
    for origin in origins.values():
        found |= {origin["generator"]["by"]} if "generator" in origin else set()
        found |= set(generators_of(origin.get("manifest", {}).get("origins", {})))
    return sorted(found)


def made_by() -> dict[str, Any]:
    """When, where and by what: {"created", "host", "hardware", "commit", and what of INJECTED there is}."""
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": platform.node(),
        "hardware": _hardware(),
        **({"commit": commit} if (commit := _commit()) else {}),
        **injected(),
    }


def injected() -> dict[str, str]:
    """What of INJECTED there is, by its name in a manifest."""
    return {name: os.environ[variable] for variable, name in INJECTED.items() if os.environ.get(variable)}


def versions(modules: Collection[str] | None = None) -> dict[str, str]:
    """Of Python and the libraries that decide what comes out.

    Args:
        modules: Only of libraries that these bring to bear, and of Python no more than 3.x.
    """
    installed = {"python": platform.python_version()}
    for package, by in PACKAGES.items():
        if modules is None or not set(by).isdisjoint(modules):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                installed[package] = importlib.metadata.version(package)
    return installed if modules is None else minor_python(installed)


def minor_python(versions: Mapping[str, str]) -> dict[str, str]:
    """With 3.11 for Python 3.11.7, whose patches change no result."""
    return {**versions, "python": ".".join(versions["python"].split(".")[:2])}


def _hardware() -> dict[str, Any]:
    """Of this host; of GPUs only where torch is loaded, as it is in every stage that uses them."""
    hardware: dict[str, Any] = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        hardware["gpus"] = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return hardware


@functools.cache
def _commit() -> str:
    """Of the checkout that this code runs from; '' outside one. The code's own digest tells of changes after it."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
