"""Running out of memory costs an update's time, not its result. torch.OutOfMemoryError is raised by hand: CPUs have none."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from run_methods import VARIANTS
from safetensors.torch import load_file
from support import ROOT

from components.errors import UserError
from components.train import stage
from components.training.data import Batch, read_split
from components.training.memory import FIRST_TOKENS, costliest, held_later, largest, occupied
from components.training.method import Loss
from components.training.methods.plain import Plain
from components.training.methods.scala import Scala
from components.training.optimizers import OPTIMIZERS, build_optimizer

ARGUMENTS: dict[str, Any] = {
    "model": "tiny",
    "learning_rate": 1e-3,
    "num_updates": 4,
    "global_batch_size": 64,
    "dropout": 0.0,
    "precision": "fp64",
    "perturbation_start": 0.0,
    "log_interval": 1,
}


def run_out(monkeypatch: pytest.MonkeyPatch, kind: Any, most: int) -> list[int]:
    """Let every micro-batch of more than `most` tokens fail, in its backward pass; returns those that did, as they come."""
    real, failed = kind.losses, []

    def losses(self: Any, objective: Any, model: Any, batch: Batch, progress: Any) -> Iterator[Loss]:
        for loss in real(self, objective, model, batch, progress):
            num_tokens = int(batch.attention_mask.sum())
            if num_tokens > most:
                loss.total.backward()  # a part of the gradient is there already
                failed.append(num_tokens)
                raise torch.OutOfMemoryError(f"no room for {num_tokens} tokens")
            yield loss

    monkeypatch.setattr(kind, "losses", losses)
    return failed


@pytest.mark.parametrize(("method", "kind"), [("plain", Plain), ("scala", Scala)])
def test_an_update_that_did_not_fit_is_computed_again_with_the_same_result(
    tokenized: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: Any,
    kind: Any,
) -> None:
    data = tokenized("rte")
    stage.train(data_dir=data, output_dir=tmp_path / "roomy", method=method, micro_batch_tokens=4000, **ARGUMENTS)
    failed = run_out(monkeypatch, kind, 600)
    stage.train(data_dir=data, output_dir=tmp_path / "tight", method=method, micro_batch_tokens=4000, **ARGUMENTS)
    assert failed
    assert "out of memory with 4000 tokens at a time: going on with 2000" in capsys.readouterr().err
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("roomy", "tight"))
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=1e-6, atol=1e-9)
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("roomy", "tight")]
    losses = [[json.loads(line)["loss"] for line in part] for part in lines]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("repetitions", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_a_rank_that_runs_out_of_memory_alone_changes_nothing_and_nobody_hangs(
    tokenized: Callable[[str], Path], tmp_path: Path, repetitions: int
) -> None:
    """After any forward pass of any method, with more than one micro-batch when it is computed again."""
    script = ROOT / "tests/training/run_out_of_memory.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
    done = subprocess.run(
        [str(word) for word in (*command, tokenized("rte"), tmp_path, repetitions)],
        capture_output=True, text=True, cwd=ROOT, timeout=120 * repetitions,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    differences = json.loads((tmp_path / "differences.json").read_text())
    assert {name.partition(",")[0] for name in differences} == set(VARIANTS)
    assert {"smart, pass 3", "sophia, pass 2"} <= set(differences)  # pass 1 of Sophia's is for its Hessian
    assert {name: it for name, it in differences.items() if it > 1e-6} == {}


def test_one_example_too_much_is_one_line(
    tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = int(read_split(tokenized("rte"), "train").lengths.max())
    run_out(monkeypatch, Plain, 1)
    with pytest.raises(UserError, match=f"out of memory with {longest} tokens at a time, which is one example: tokenize with"):
        stage.train(data_dir=tokenized("rte"), output_dir=tmp_path / "m", method="plain", **ARGUMENTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("room", "most", "expected"),
    [(10_000, 10**9, 8192), (10**9, 20_000, 32_768), (3000, 10**9, FIRST_TOKENS), (10**9, 100, FIRST_TOKENS)],
)
def test_the_largest_number_of_tokens_that_fits_is_found(room: int, most: int, expected: int) -> None:
    peak = [0.0]

    def compute(tokens: int) -> None:
        if tokens > room:
            raise torch.OutOfMemoryError
        peak[0] = tokens / 10**12

    assert largest(compute, most, lambda: peak[0]) == expected


def test_a_nearly_full_memory_is_not_filled() -> None:
    peak = [0.0]

    def compute(tokens: int) -> None:
        peak[0] = tokens / 20_000

    assert largest(compute, 10**9, lambda: peak[0]) == 8192


def test_what_is_tried_has_the_most_padding_and_the_longest_examples() -> None:
    """Per token a micro-batch of the longest examples alone, which has no padding, would be the cheapest of all."""
    lengths = torch.tensor([8] * 900 + [64] * 90 + [512] * 10)[torch.randperm(1000)]
    (piece,) = costliest(lengths, 256, 100_000)
    assert len(piece) == 256
    assert lengths[piece].unique().tolist() == [8, 64, 512]
    pieces = costliest(lengths, 256, 1024)
    widest = max(pieces, key=lambda piece: int(lengths[piece].max()))
    most = max(pieces, key=lambda piece: len(piece) * int(lengths[piece].max()))
    assert int(lengths[widest].max()) == 512
    assert len(most) * int(lengths[most].max()) > 1.5 * int(lengths[most].sum()), "hardly any padding"
    assert all(int(lengths[piece].sum()) < 1024 + 512 for piece in pieces)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_an_optimizer_will_hold_is_counted_before_it_does(name: str) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(300, 200), torch.nn.Linear(200, 1))
    optimizer = build_optimizer(name, network, 1e-3, 0.0)
    size = sum(4 * weight.numel() for weight in network.parameters())
    before = held_later(network, optimizer)
    network(torch.randn(2, 300)).sum().backward()
    optimizer.step()
    held = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if value.ndim)
    assert before == held + size
    assert held_later(network, optimizer) == size


def test_a_model_whose_optimizer_has_no_room_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*size: int, **settings: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with occupied(torch.device("cpu"), 2**20):
        pass
    monkeypatch.setattr(torch, "empty", full)
    message = r"^the optimizer's state and gradients take 3\.0 GiB more: take a smaller model or a GPU with more memory \(CUDA"
    with pytest.raises(UserError, match=message), occupied(torch.device("cpu"), 3 * 2**30):
        pass


@pytest.mark.slow
def test_memory_does_not_grow_with_the_updates(tokenized: Callable[[str], Path], tmp_path: Path) -> None:
    """After 2,000 updates it is within 10 % of that after 200, where oneDNN multiplies what is filled up; else it is not."""
    grown = {}
    for filled, updates in ((True, 2000), (False, 400)):
        command = [
            sys.executable,
            ROOT / "tests/training/run_memory.py",
            tokenized("sst2"),
            tmp_path / str(filled),
            updates,
            filled,
        ]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT, timeout=1200)
        assert done.returncode == 0, done.stderr
        before, after = json.loads(done.stdout.splitlines()[-1]).values()
        grown[filled] = after / before
    print(grown)
    assert grown[True] < 1.1 < grown[False]
