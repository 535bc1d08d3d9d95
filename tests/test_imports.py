"""What may not be loaded where: a cluster's API server compiles components without torch, a training image has no kfp."""

import statistics
import subprocess
import sys
import time

import pytest
from support import ROOT, run_module

STAGES = ("tokenize", "train", "evaluate", "register", "suite")


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120)
    return set(done.stdout.split())


@pytest.mark.parametrize("stage", STAGES)
def test_a_component_loads_no_torch(stage: str) -> None:
    assert not loaded_by(f"components.{stage}.component") & {"torch", "transformers", "mlflow", "kubernetes_asyncio"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_loads_no_kfp_and_no_mlflow(stage: str) -> None:
    assert not loaded_by(f"components.{stage}.stage") & {"kfp", "kubernetes", "mlflow"}


@pytest.mark.parametrize("module", ["pipelines.adapt", "pipelines.suite", "pipelines.compile"])
def test_a_pipeline_loads_no_torch_and_no_mlflow(module: str) -> None:
    assert not loaded_by(module) & {"torch", "transformers", "mlflow"}


@pytest.mark.parametrize("stage", STAGES)
def test_help_starts_in_under_two_seconds(stage: str) -> None:
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        done = run_module(f"components.{stage}", "--help")
        seconds.append(time.monotonic() - started)
        assert done.returncode == 0
        assert "--output-dir" in done.stdout or "--model-dir" in done.stdout
    assert statistics.median(seconds) < 2
    assert not loaded_by(f"components.{stage}.stage") & {"torch", "transformers"}
