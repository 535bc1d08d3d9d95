"""A run whose network doubles its layers on the way: the same on any number of ranks, stopped or not."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import model
from run_growth import AT, NUM_UPDATES, VARIANTS, train, train_all
from safetensors.torch import load_file
from support import ROOT

from components.errors import UserError
from components.modeling.abilities import PRE_LN
from components.training.growth import Growth, Stacking, grow
from components.training.optimizers import build_optimizer
from components.training.precision import Arithmetic
from components.training.ranks import Ranks
from components.training.run import Run
from components.training.selection import Shuffled

ALONE = Ranks(0, 1, torch.device("cpu"))


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in run.network.named_parameters()}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in json.loads(line).items() if name != "seconds"}
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_that_grows_ends_with_the_same_bytes_wherever_it_was_stopped(tmp_path: Path, name: str) -> None:
    """Before it grows, just when it is to, between, and after."""
    whole = weights_of(train(tmp_path / "whole", ALONE, **VARIANTS[name]))
    assert len(lines(tmp_path / "whole")) == NUM_UPDATES
    for stops in ([1, 2, 3, 5], [4, 6, 7]):
        folder = tmp_path / str(stops)
        for stop in (*stops, NUM_UPDATES):
            run = train(folder, ALONE, num_updates=stop, **VARIANTS[name])
        assert all(torch.equal(weight, whole[key]) for key, weight in weights_of(run).items())
        assert lines(folder) == lines(tmp_path / "whole")


def test_layers_double_at_their_share_of_the_budget_and_the_work_says_so(tmp_path: Path) -> None:
    run = train(tmp_path / "keep", ALONE)
    assert [line["layers"] for line in lines(tmp_path / "keep")] == [1, 1, 2, 2, 2, 4, 4, 4]
    assert [(work.layers, work.examples) for work in run.spent.by_layers.values()] == [(1, 18), (2, 22), (4, 27)]
    assert run.grown == run.network.config.num_hidden_layers // 2 == 2
    train(tmp_path / "pld", ALONE, **VARIANTS["pld"])
    dropped = [line["layers"] for line in lines(tmp_path / "pld")]
    assert all(few <= most for few, most in zip(dropped, [1, 1, 2, 2, 2, 4, 4, 4], strict=True))
    assert len({few - most for few, most in zip(dropped, [1, 1, 2, 2, 2, 4, 4, 4], strict=True)}) > 1


def test_with_zero_projections_the_loss_is_that_of_the_run_that_did_not_grow(tmp_path: Path) -> None:
    """Of update 2, the first after the layers doubled; a plain copy's is another."""
    losses = {}
    for name in ("zero", "plain"):
        train(tmp_path / name, ALONE, num_updates=3, zero_init=name == "zero")
        losses[name] = lines(tmp_path / name)[2]["loss"]
    train(tmp_path / "none", ALONE, num_updates=3, at=[])
    unchanged = lines(tmp_path / "none")[2]["loss"]
    assert losses["zero"] == unchanged
    assert abs(losses["plain"] - unchanged) > 1e-5


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    folder = tmp_path_factory.mktemp("growth")

    def make(num_ranks: int) -> Path:
        output_dir = folder / str(num_ranks)
        if num_ranks == 1 and not output_dir.exists():
            train_all(output_dir, ALONE)
        if not output_dir.exists():
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]
            command = [sys.executable, *launcher, ROOT / "tests" / "training" / "run_growth.py", output_dir]
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT, timeout=300)
            assert done.returncode == 0, done.stderr
        return output_dir

    return make


@pytest.mark.parametrize("num_ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_change_nothing(of_ranks: Callable[[int], Path], num_ranks: int) -> None:
    for name in VARIANTS:
        one, other = (load_file(of_ranks(number) / f"{name}.st") for number in (1, num_ranks))
        for key, weight in one.items():
            difference = (other[key] - weight).abs().max() / weight.abs().max().clamp(min=1e-2)
            assert difference < 1e-6, f"{name}: {key} differs by {difference:.1e}"


# --- what the optimizer remembers ---


def grown(state: Any, optimizer: str) -> tuple[Run, dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """A run that has moved once and then doubled; what its optimizer remembered before, by parameter and by group."""
    network = model(PRE_LN[0])

    def build(network: Any) -> torch.optim.Optimizer:
        return build_optimizer(optimizer, network, 1e-3, 0.1)

    run = Run(network, build(network), Arithmetic("fp64", ALONE.device), Shuffled(9, 3), tokens=99)
    for weight in network.parameters():
        weight.grad = torch.randn_like(weight)
    run.optimizer.step()
    before = {name: dict(run.optimizer.state[weight]) for name, weight in network.named_parameters()}
    groups = [{key: value for key, value in group.items() if key != "params"} for group in run.optimizer.param_groups]
    grow(run, Growth(Stacking(grow_at=AT, grow_optimizer_state=state), lambda network: None, build), 1)
    return run, before, groups


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
@pytest.mark.parametrize("state", ["copy", "keep", "reset"])
def test_the_optimizer_remembers_what_it_is_to(state: str, optimizer: str) -> None:
    run, before, groups = grown(state, optimizer)
    assert run.network.config.num_hidden_layers == 6
    assert {id(weight) for group in run.optimizer.param_groups for weight in group["params"]} == {
        id(weight) for weight in run.network.parameters()
    }
    for name, weight in run.network.named_parameters():
        is_new = any(f".layer.{number}." in name for number in (3, 4, 5))
        source = name
        for number in (3, 4, 5):
            source = source.replace(f".layer.{number}.", f".layer.{number - 3}.")
        held = run.optimizer.state.get(weight, {})
        if state == "reset" or (state == "keep" and is_new):
            assert not held
            continue
        assert held.keys() == before[source].keys() != set()
        for key, value in held.items():
            assert torch.equal(value, before[source][key])
            assert value is not before[source][key]
    after = [{key: value for key, value in group.items() if key != "params"} for group in run.optimizer.param_groups]
    assert (after == groups) or (state == "reset" and all("step" not in group for group in after))


def test_shares_that_are_none_are_one_line() -> None:
    for shares in ([0.5, 0.3], [0.0], [1.0], [0.3, 0.3]):
        with pytest.raises(UserError, match=r"grow_at is .*: give shares of the budget that rise, above 0 and below 1"):
            Stacking(grow_at=shares)
    with pytest.raises(UserError, match="grow_optimizer_state is 'some': give one of copy, reset, keep"):
        Stacking(grow_at=AT, grow_optimizer_state="some")  # type: ignore[arg-type]
    stacking = Stacking(grow_at=AT)
    assert [stacking.times(share) for share in (0.0, 0.249, 0.25, 0.5, 0.625, 1.0)] == [0, 0, 1, 1, 2, 2]
    assert Stacking(grow_at=[0.3]).times(0.1 + 0.2) == Stacking(grow_at=[0.3]).times(3 / 10) == 1
