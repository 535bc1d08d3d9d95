"""Nothing changed: loss curves of every method, and whole local pipelines, as an earlier version of this code recorded them.

To the bit on a machine and torch like the recorded ones; elsewhere as near as rounding lets them be.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from support import ROOT, run_module

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("recorded.json").read_text())


def machine() -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    version = torch.__version__.partition("+")[0]
    return f"{(names or ['?'])[0]}, {torch.backends.cpu.get_cpu_capability()}, torch {version}"


IS_SAME_MACHINE = machine() == RECORDED["machine"]


def recorded(values: list[float], relative: float) -> Any:
    return values if IS_SAME_MACHINE else pytest.approx(values, rel=relative)


@pytest.mark.parametrize(
    ("task", "num_ranks"),
    [("rte", 1), ("rte", 2), pytest.param("stsb", 1, marks=pytest.mark.slow), pytest.param("stsb", 2, marks=pytest.mark.slow)],
)
def test_the_loss_curve_of_every_method_is_the_recorded_one(
    tokenized: Callable[[str], Path], tmp_path: Path, task: str, num_ranks: int
) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if num_ranks == 2 else []
    script = Path(__file__).with_name("run_recorded.py")
    command = [sys.executable, *launcher, str(script), str(tokenized(task)), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    curves = json.loads((tmp_path / "curves.json").read_text())
    known = RECORDED["curves"][f"{task}, {num_ranks} rank(s)"]
    assert set(curves) == set(known)
    for name, losses in curves.items():
        assert losses == recorded(known[name], 1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RECORDED["pipelines"]))
def test_a_local_pipeline_makes_the_recorded_model_and_answers(tmp_path: Path, name: str) -> None:
    known = RECORDED["pipelines"][name]
    done = run_module("pipelines.local", "adapt", *known["arguments"], "--runs-dir", tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    (trained,) = tmp_path.glob("*/*/train/trained")
    (evaluation,) = tmp_path.glob("*/*/evaluate/evaluation")
    losses = [json.loads(line)["loss"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert losses == recorded(known["losses"], 1e-3)
    results = json.loads((evaluation / "metrics.json").read_text())
    measured = {split: {**it["metrics"], **it.get("robustness", {})} for split, it in results["splits"].items()}
    for split, metrics in known["metrics"].items():
        assert list(measured[split].values()) == recorded(list(metrics.values()), 0.05), split
    if IS_SAME_MACHINE:
        answers = tmp_path / "answers.parquet"
        table = pq.read_table(evaluation / "predictions.parquet", columns=["split", "idx", "label", "prediction", "scores"])
        pq.write_table(table, answers, compression="zstd")
        files = {"weights": trained / "model.safetensors", "predictions": answers}
        digests = {what: hashlib.sha256(path.read_bytes()).hexdigest() for what, path in files.items()}
        assert digests == {what: known[what] for what in files}
