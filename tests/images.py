"""The images, as far as they can be had without building one: what their requirements lead to, and Pythons with no more."""

import functools
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from kfp.dsl.python_component import PythonComponent
from packaging.requirements import Requirement
from support import ROOT

from components.artifacts.code import imported_by
from components.image import IMAGE, TRAIN_IMAGE

FILES = {IMAGE: "stage", TRAIN_IMAGE: "train"}


def names_in(file: str) -> list[str]:
    """The packages that a requirements file names, those of the files it refers to included."""
    names: list[str] = []
    for line in (ROOT / "docker" / file).read_text().splitlines():
        requirement = line.partition("#")[0].strip()
        names += names_in(requirement.removeprefix("-r ")) if requirement.startswith("-r ") else [requirement]
    return [name for name in names if name]


def closure(names: list[str]) -> set[str]:
    """Those packages and all that they ask for, as far as it is installed."""
    found: set[str] = set()
    todo = [Requirement(name) for name in names]
    while todo:
        wanted = todo.pop()
        name = _plain(wanted.name)
        key = f"{name}[{','.join(sorted(wanted.extras))}]" if wanted.extras else name
        if key in found:
            continue
        found.add(key)
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            if any(requirement.marker is None or requirement.marker.evaluate({"extra": it}) for it in wanted.extras or {""}):
                todo.append(requirement)
    return {name.partition("[")[0] for name in found}


@functools.cache
def brought(image: str) -> set[str]:
    """The packages that are in the image stage, train or mlflow."""
    return closure(names_in(f"{image}.txt")) | (set() if image == "mlflow" else set(names_in("no-deps.txt")))


def components() -> Mapping[str, tuple[str, str]]:
    """Every component of the project, in whatever pipeline it is: name -> (image, module)."""
    found = {}
    for path in sorted((ROOT / "components").rglob("*.py")):
        if "@dsl.component(" in path.read_text():
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for one in vars(importlib.import_module(module)).values():
                if isinstance(one, PythonComponent) and one.python_func.__module__ == module:
                    found[one.name] = (FILES[one.component_spec.implementation.container.image], module)
    return found


def chain(module: str) -> Mapping[str, set[str]]:
    """What a module of ours and what it imports, in functions too, import from elsewhere: top-level name -> by whom."""
    return {
        top: {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
        for top, paths in imported_by(module).items()
        if top not in sys.stdlib_module_names
    }


def packages_of(top: str) -> set[str]:
    """The packages that an import of this name may come from."""
    return {_plain(name) for name in _distributions().get(top, ())}


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def python_of(image: str, folder: Path) -> Path:
    """The Python of a new environment in `folder` that has what the image has, as links to what is installed here.

    What it starts as sys.executable has no more than itself.
    """
    venv.create(folder, symlinks=True, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in brought(image):
        there = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in there.files or ()} - {"..", "__pycache__"}:
            if not (packages / top).exists():  # some share a folder: google, opentelemetry
                (packages / top).symlink_to(Path(str(there.locate_file(top))))
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def image_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Image -> a Python that has what the image has, and nothing else; made once."""

    def make(image: str) -> Path:
        folder = tmp_path_factory.getbasetemp() / f"image-{image}"
        return folder / "bin" / "python" if folder.exists() else python_of(image, folder)

    return make


def run_in(python: Path, *arguments: object, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """That Python with this project's code."""
    known = {name: os.environ[name] for name in ("PATH", "HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS") if name in os.environ}
    known |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [str(python), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=known, cwd=ROOT)
