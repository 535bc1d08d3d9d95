"""The list of what to mirror names what the files name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from manifests import needs_kubectl, pod_specs, rendered
from support import ROOT

from pipelines.compile import compile_all


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    compile_all(output_dir=folder, image=f"registry.example.com/one@sha256:{'a' * 64}")
    return folder


@pytest.fixture(scope="module")
def listed(build: Path) -> dict[str, str]:
    """What is listed -> the file that asks for it."""
    command = [sys.executable, "docker/mirror_list.py", "--build-dir", str(build)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines() if not line.startswith("#")]
    assert all(kind in ("image", "package") for kind, _, _ in lines)
    return {name: file for _, name, file in lines}


def test_every_image_that_a_manifest_or_a_compiled_pipeline_runs_is_listed(listed: dict[str, str], build: Path) -> None:
    needs_kubectl()
    run = {it["image"] for document in rendered("overlays/kind") for pod in pod_specs(document) for it in pod["containers"]}
    for path in build.rglob("*.yaml"):
        executors = next(iter(yaml.safe_load_all(path.read_text())))["deploymentSpec"]["executors"].values()
        run |= {executor["container"]["image"] for executor in executors}
    assert len(run) == 5
    assert run <= set(listed)


def test_what_is_listed_is_named_by_the_file_that_is_said_to_name_it(listed: dict[str, str]) -> None:
    for name, file in listed.items():
        path = ROOT / file
        if path.is_file():
            assert re.search(re.escape(name.partition("==")[0]), path.read_text(), re.IGNORECASE), f"{name}: {file}"


def test_the_base_image_and_torch_are_among_them(listed: dict[str, str]) -> None:
    assert "docker/Dockerfile" in listed.values()
    assert any(name.startswith("torch==") for name in listed)
