"""What a site without a way out has to copy in, read from the files that name it: `make mirror-list`.

Images as REGISTRY/NAME:TAG, packages as NAME==VERSION, each with the file that asks for it. Lines that start with # tell of
what no file here can name.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from components import cli

ROOT = Path(__file__).parents[1]
OURS = "/adapt-python-"  # what `make images` builds
OPERATOR = "docker.io/library/alpine:3.10"
"""The training-operator's own for its init container (--pytorch-init-container-image), which no manifest of ours names."""


def base_images() -> Iterator[str]:
    text = (ROOT / "docker" / "Dockerfile").read_text()
    yield from re.findall(r"^ARG BASE_IMAGE=(\S+)$", text, re.MULTILINE)
    yield from (image for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if "$" not in image and ":" in image)


def images_in(value: object) -> Iterator[str]:
    """Every value of a key `image` in a document, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "image" and isinstance(inner, str):
                yield inner
            else:
                yield from images_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from images_in(inner)


def images(build_dir: Path) -> dict[str, str]:
    """Image -> the file that names it; of the compiled pipelines too."""
    found = dict.fromkeys(base_images(), "docker/Dockerfile") | {OPERATOR: "k8s/operator (training-operator v1.9)"}
    for path in sorted([*ROOT.glob("k8s/**/*.yaml"), *build_dir.glob("**/*.yaml")]):
        if path.name != "initContainer.yaml":  # a template, whose image is the operator's
            for document in yaml.safe_load_all(path.read_text()):
                found |= {image: os.path.relpath(path, ROOT) for image in images_in(document) if image not in found}
    return found


def packages() -> dict[str, str]:
    """NAME==VERSION -> the requirements file that names it."""
    lines = [line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = {name.lower().replace("_", "-"): version for name, _, version in lines if version}
    found = {}
    for path in sorted(ROOT.glob("docker/*.txt")):
        for line in path.read_text().splitlines():
            if line and not line.startswith(("#", "-r ")):
                found[f"{line}=={pinned[line.lower()]}"] = str(path.relative_to(ROOT))
    return found


def mirror_list(*, build_dir: Path = Path("build")) -> None:
    """Print the list.

    Args:
        build_dir: Folder with compiled pipelines.
    """
    known = images(build_dir.resolve())
    ours = sorted(image for image in known if OURS in image)
    print("# images to copy; Kubeflow's own (driver, launcher, operator) are its installation's")
    for image, file in known.items():
        if image not in ours:
            print(f"image    {image}    {file}")
    print("# images that `make images` builds outside and `make push` copies in")
    for image in ours:
        print(f"image    {image}    {known[image]}")
    print("# packages, where images are built inside; with all that they ask for:")
    print("#   pip download -c constraints.txt -d wheels -r docker/train.txt -r docker/mlflow.txt -r docker/build.txt")
    print("#   pip download -c constraints.txt -d wheels --no-deps -r docker/no-deps.txt")
    for package, file in packages().items():
        print(f"package  {package}    {file}")
    print("# models and data are what you give as model and source: a folder, or minilm (in the images) and sample (generated)")


if __name__ == "__main__":
    cli.run(mirror_list, "python docker/mirror_list.py")
