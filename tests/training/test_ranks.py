"""Ranks and micro-batches change nothing but speed, with one all-reduce of the gradient an update."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from run_methods import ALL_REDUCES, COMMON, DROPPING, NUM_UPDATES, VARIANTS
from safetensors.torch import load_file
from support import ROOT, heed_interrupts
from torch.distributed import DistBackendError

from components.errors import TryAgainError, UserError
from components.launch.torchrun import launched
from components.training.interrupts import lost_ranks
from components.training.ranks import join_ranks

ARGUMENTS = {
    "model": "tiny",
    "method": "scala",
    "learning_rate": 1e-3,
    "num_epochs": 2,
    "global_batch_size": 199,  # of 200: the last batch of an epoch has one row, and leaves the second rank without any
    "dropout": 0.0,
    "precision": "fp32",
    "perturbation_start": 0.4,
    "log_interval": 3,
}


@pytest.fixture(scope="module")
def runs(tokenized: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, tuple[int, ...]], Path]:
    """(ranks, micro-batch sizes) -> a folder of every method's models; see run_methods.py. Made once."""
    folder = tmp_path_factory.mktemp("methods")

    def make(num_ranks: int, micro_batches: tuple[int, ...]) -> Path:
        output_dir = folder / f"{num_ranks}-{micro_batches}"
        if not output_dir.exists():
            launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(num_ranks)] if num_ranks > 1 else []
            script = ROOT / "tests" / "training" / "run_methods.py"
            command = [sys.executable, *launcher, script, tokenized("rte"), output_dir, *micro_batches]
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT)
            assert done.returncode == 0, done.stderr
        return output_dir

    return make


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_parameters(folder: Path, reference: Path) -> None:
    """To 1e-6 of each tensor's largest value, for every method.

    The attention's key biases have no gradient but rounding's, since softmax ignores what all keys share: they stay near zero,
    and there 1e-6 of an update's size is asked.
    """
    for variant in (*VARIANTS, *DROPPING):
        one, other = weights_of(reference / variant), weights_of(folder / variant)
        for name, weight in one.items():
            difference = (other[name] - weight).abs().max() / weight.abs().max().clamp(min=COMMON["learning_rate"])
            assert difference < 1e-6, f"{variant}: {name} differs by {difference:.1e}"


def test_micro_batches_change_nothing(runs: Callable[[int, tuple[int, ...]], Path]) -> None:
    assert_same_parameters(runs(1, (32, 7)) / "7", runs(1, (32, 7)) / "32")


@pytest.mark.parametrize(("num_ranks", "micro_batch"), [(2, 7), pytest.param(4, 32, marks=pytest.mark.slow)])
def test_ranks_change_nothing(runs: Callable[[int, tuple[int, ...]], Path], num_ranks: int, micro_batch: int) -> None:
    assert_same_parameters(runs(num_ranks, (micro_batch,)) / str(micro_batch), runs(1, (32, 7)) / "32")


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_ranks_and_micro_batches_change_nothing(runs: Callable[[int, tuple[int, ...]], Path], num_ranks: int) -> None:
    reference = runs(1, (1, 7, 32)) / "32"
    for micro_batch in (1, 7, 32):
        assert_same_parameters(runs(num_ranks, (1, 7, 32)) / str(micro_batch), reference)


@pytest.mark.parametrize(("num_ranks", "micro_batch"), [(2, 7), pytest.param(4, 32, marks=pytest.mark.slow)])
def test_every_method_reduces_its_gradient_once_an_update(
    runs: Callable[[int, tuple[int, ...]], Path], num_ranks: int, micro_batch: int
) -> None:
    counted = json.loads((runs(num_ranks, (micro_batch,)) / str(micro_batch) / "all_reduces.json").read_text())
    assert counted == {name: NUM_UPDATES * ALL_REDUCES.get(name, 1) for name in [*VARIANTS, *DROPPING]}


def test_the_noise_is_not_lost_in_the_comparison(runs: Callable[[int, tuple[int, ...]], Path]) -> None:
    """The runs above do differ where they should: every method ends elsewhere than plain training."""
    folder = runs(1, (32, 7)) / "32"
    plain = weights_of(folder / "plain")
    for variant in set(VARIANTS) - {"plain", "rdrop"}:  # without dropout, R-Drop is plain
        assert any(not torch.equal(weight, plain[name]) for name, weight in weights_of(folder / variant).items()), variant


def test_layers_are_dropped_in_the_comparison(runs: Callable[[int, tuple[int, ...]], Path]) -> None:
    for variant, num_layers in (("layerdrop", 2), ("pld", 3)):
        lines = (runs(1, (32, 7)) / "32" / variant / "metrics.jsonl").read_text().splitlines()
        layers = [json.loads(line)["layers"] for line in lines]
        assert layers[0] == max(layers) == num_layers
        assert min(layers) <= 1


def test_what_a_rank_has_to_say_reaches_the_launcher(tokenized: Callable[[str], Path], tmp_path: Path) -> None:
    arguments = {**ARGUMENTS, "data_dir": tokenized("rte"), "output_dir": tmp_path / "m", "perturbation_radius": -1}
    for num_processes in (1, 2):
        with (
            pytest.raises(UserError, match=r"perturbation_radius is -1\.0: give 0 or more"),
            launched("train", arguments, num_processes) as wait,
        ):
            wait()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="num_processes is 0"), launched("train", arguments, 0):
        pass


ENDING = """
import gc, sys
from pathlib import Path
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from components.train.stage import train

def destroy_checked(destroy=dist.destroy_process_group):
    assert not any(isinstance(each, DistributedDataParallel) for each in gc.get_objects())
    destroy()

dist.destroy_process_group = destroy_checked
train(data_dir=Path(sys.argv[1]), model="tiny", output_dir=Path(sys.argv[2]), recipe="scala", num_updates=2)
"""


def test_nothing_of_ddp_outlives_the_process_group(tokenized: Callable[[str], Path], tmp_path: Path) -> None:
    """If it did, ranks would hang now and then: the reducer's end waits for gloo's threads with Python's lock held."""
    script = tmp_path / "ending.py"
    script.write_text(ENDING)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run([*command, tokenized("rte"), tmp_path / "m"], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_its_checkpoint_and_nothing_else(
    tokenized: Callable[[str], Path], tmp_path: Path, stop: signal.Signals
) -> None:
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
    assert [path.name for path in tmp_path.iterdir()] == ["m.checkpoint"]
    assert len(list((tmp_path / "m.checkpoint").iterdir())) == 1


ALONE = """
import os, runpy, sys
import torch.distributed as dist
from components.training.methods.plain import Plain

def destroy_together(destroy=dist.destroy_process_group):  # as NCCL does
    dist.barrier()
    destroy()

def losses(self, objective, network, batch, progress, real=Plain.losses):
    if os.environ["RANK"] == "1" and progress.update == 3:
        raise ValueError("rank 1 alone")
    yield from real(self, objective, network, batch, progress)

dist.destroy_process_group, Plain.losses = destroy_together, losses
sys.argv[0] = "train"
runpy.run_module("components.train", run_name="__main__")
"""


def test_a_rank_that_fails_alone_waits_for_nobody_and_is_the_one_to_blame(
    tokenized: Callable[[str], Path], tmp_path: Path
) -> None:
    script, record = tmp_path / "alone.py", tmp_path / "error.json"
    script.write_text(ALONE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    given = ["--data-dir", tokenized("rte"), "--output-dir", tmp_path / "m", "--model", "tiny", "--num-updates", "9"]
    environment = {**os.environ, "TORCHELASTIC_ERROR_FILE": str(record)}
    done = subprocess.run([*command, *map(str, given)], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
    assert done.returncode == 1
    assert json.loads(record.read_text())["message"]["message"] == "ValueError: rank 1 alone"
    assert "in losses" in done.stderr  # a bug shows its traceback


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DistBackendError("NCCL error in: ... remote process exited"), TryAgainError),
        (RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer. X"), TryAgainError),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nmore"), TryAgainError),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), torch.AcceleratorError),
        (RuntimeError("shapes do not match"), RuntimeError),
    ],
)
def test_a_lost_gpu_or_peer_may_be_tried_again_and_a_bug_may_not(
    error: Exception, outcome: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises((RuntimeError, TryAgainError)) as raised, lost_ranks(lambda: 0):
        raise error
    assert type(raised.value) is outcome


def test_more_ranks_than_gpus_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"LOCAL_RANK": "2", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(UserError, match="rank 2 of this machine has no GPU, of which there are 2: give num_processes"),
        join_ranks(),
    ):
        pass


def test_a_rank_that_waits_for_its_peers_ends_at_once() -> None:
    """C++ waits there, and keeps Python's handlers waiting."""
    joins = "from components.errors import exit_codes\nfrom components.training.ranks import join_ranks\n"
    joins += "with exit_codes():\n    print('joins', flush=True)\n    with join_ranks():\n        pass\n"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-c", joins]
    with subprocess.Popen(command, env={**os.environ, **group}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "joins\n"
        time.sleep(1)  # it waits by then
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
