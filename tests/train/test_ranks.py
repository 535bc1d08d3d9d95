"""Two ranks under torchrun are one rank: the same losses and weights, with one all-reduce of gradients an update."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import ROOT, heed_interrupts

from components.errors import UserError
from components.launch.torchrun import launch

ARGUMENTS = {
    "model": "tiny",
    "learning_rate": 1e-3,
    "num_epochs": 2,
    "global_batch_size": 199,  # of 200: the last batch of an epoch has one row, and leaves the second rank without any
    "dropout": 0.0,
    "precision": "fp32",
    "perturbation_start": 0.4,
    "log_interval": 3,
}


@pytest.mark.parametrize("method", ["plain", "scala"])
def test_two_ranks_have_the_loss_curve_of_one(tokenized: Callable[[str], Path], tmp_path: Path, method: str) -> None:
    curves, weights = [], []
    for num_processes in (1, 2):
        output_dir = tmp_path / str(num_processes)
        launch({**ARGUMENTS, "method": method, "data_dir": tokenized("rte"), "output_dir": output_dir}, num_processes)
        lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
        assert [line["examples"] for line in lines] == [199, 200, 399, 400]
        curves.append([(line["loss"], line["gradient_norm"]) for line in lines])
        weights.append(load_file(output_dir / "model.safetensors"))
    for one, two in zip(*curves, strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-6)


def test_what_a_rank_has_to_say_reaches_the_launcher(tokenized: Callable[[str], Path], tmp_path: Path) -> None:
    arguments = {**ARGUMENTS, "data_dir": tokenized("rte"), "output_dir": tmp_path / "m", "perturbation_radius": -1}
    for num_processes in (1, 2):
        with pytest.raises(UserError, match=r"perturbation_radius is -1\.0: give 0 or more"):
            launch(arguments, num_processes)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="num_processes is 0"):
        launch(arguments, 0)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_nothing(tokenized: Callable[[str], Path], tmp_path: Path, stop: signal.Signals) -> None:
    flags = ["--data-dir", tokenized("sst2"), "--model", "tiny", "--output-dir", tmp_path / "m", "--num-epochs", "10000"]
    command = [sys.executable, "-m", "components.train", *map(str, flags)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts) as process:
        assert process.stderr is not None
        while "update" not in process.stderr.readline():
            time.sleep(0.01)
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(stop)
        process.communicate(timeout=60)
    assert process.returncode == 128 + stop
    assert list(tmp_path.iterdir()) == []
