"""An image's Python, made of links to what is installed here: the packages that its requirements lead to, and no others."""

import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support import ROOT


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
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        key = f"{name}[{','.join(sorted(wanted.extras))}]" if wanted.extras else name
        if key in found:
            continue
        found.add(key)
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            if any(requirement.marker is None or requirement.marker.evaluate({"extra": it}) for it in wanted.extras or {""}):
                todo.append(requirement)
    return {name.partition("[")[0] for name in found}


@pytest.fixture(scope="session")
def image_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Image -> a folder to import from, that holds what the image does."""

    def make(image: str) -> Path:
        folder = tmp_path_factory.getbasetemp() / f"image-{image}"
        if not folder.exists():
            folder.mkdir()
            for name in closure(names_in(f"{image}.txt")) | set(names_in("no-deps.txt")):
                there = importlib.metadata.distribution(name)
                for top in {file.parts[0] for file in there.files or ()} - {"..", "__pycache__"}:
                    if not (folder / top).exists():  # some share a folder: google, opentelemetry
                        (folder / top).symlink_to(Path(str(there.locate_file(top))))
        return folder

    return make
