"""What an optimizer does is looked at while it does it; and what is not healthy is said, once."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from components.train.stage import train
from components.training.loop import move_weights
from components.training.mechanism import HEALTHY, UpdateRatios, Watch, looked_at
from components.training.optimizers import OPTIMIZERS, build_optimizer
from components.training.optimizers.sophia import Sophia
from components.training.precision import Arithmetic
from components.training.run import Run
from components.training.selection import Shuffled


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base_model = nn.Sequential(nn.Embedding(50, 6), nn.Flatten(), nn.Linear(12, 8), nn.Tanh())
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor, cut_off: bool = False) -> torch.Tensor:
        states = self.base_model(tokens)
        return states.mean(1, keepdim=True).expand(-1, 3) if cut_off else self.head(states)


def trained_by_sophia(cut_off: bool, rho: float, num_updates: int = 201) -> list[dict[str, float]]:
    """Scalars of each look at a small classifier.  cut_off: labels are drawn from hidden states, and not from the head."""
    torch.manual_seed(0)
    network: Any = Classifier().double()
    optimizer = build_optimizer("sophia", network, 1e-3, 0.0, sophia_rho=rho)
    run = Run(network, optimizer, Arithmetic("fp64", torch.device("cpu")), Shuffled(64, 64))
    assert isinstance(optimizer, Sophia)
    found = []
    for update in range(num_updates):
        tokens, labels = torch.randint(0, 50, (64, 2)), torch.randint(0, 3, (64,))
        if update % 10 == 0:
            outputs = network(tokens, cut_off)
            drawn = torch.distributions.Categorical(logits=outputs.detach()).sample()
            nn.functional.cross_entropy(outputs, drawn).backward()
            for weight in network.head.parameters():
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            optimizer.add_hessian(64, update)
            optimizer.zero_grad()
        nn.functional.cross_entropy(network(tokens), labels).backward()
        scalars = move_weights(run, 1e-3, 0.0, look=update % 10 == 0)
        if update % 10 == 0:
            found.append({name: float(value) for name, value in scalars.items()})
        optimizer.zero_grad()
    return found


def said(looks: list[dict[str, float]]) -> list[str]:
    watch = Watch()
    return [text for number, look in enumerate(looks) for text in watch.warnings(10 * number + 1, look)]


def test_a_sound_sophia_is_healthy() -> None:
    looks = trained_by_sophia(cut_off=False, rho=0.3)
    assert [look["hessian_share"] for look in looks] == [1.0] * 21
    assert 0.1 < statistics.median(look["win_rate"] for look in looks) < 0.5
    assert said(looks) == []


def test_a_head_without_a_hessian_shows() -> None:
    """As where labels are drawn from hidden states: what an earlier test of Sophia on BERT did."""
    looks = trained_by_sophia(cut_off=True, rho=0.3)
    assert [look["hessian_share"] for look in looks] == [0.0] * 21
    (text,) = (each for each in said(looks) if "hessian_share" in each)
    assert text.startswith("update 41: hessian_share is 0, healthy are 0.9 to 1: the share of moving weights with a Hessian")


@pytest.mark.parametrize(("rho", "low", "high"), [(1e-6, 0.0, 0.02), (1e3, 0.95, 1.0)])
def test_a_rho_that_clips_all_or_nothing_shows(rho: float, low: float, high: float) -> None:
    looks = trained_by_sophia(cut_off=False, rho=rho)
    assert all(low <= look["win_rate"] <= high for look in looks)
    (text,) = said(looks)
    assert "win_rate is" in text


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_is_measured_against_the_weights(name: str) -> None:
    torch.manual_seed(0)
    network = Classifier()
    optimizer = build_optimizer(name, network, 1e-3, 0.0)
    for _ in range(2):  # SOAP's first moves no matrix
        for weight in network.parameters():
            weight.grad = torch.randn_like(weight)
        before = {
            group["name"]: torch.cat([it.detach().flatten() for it in group["params"]]) for group in optimizer.param_groups
        }
        ratios = UpdateRatios(optimizer)
        optimizer.step()
    measured = {key: float(value) for key, value in ratios.after().items()}
    for group in optimizer.param_groups:
        old, new = before[group["name"]], torch.cat([it.detach().flatten() for it in group["params"]])
        assert measured.pop(f"update_ratio_{group['name']}") == pytest.approx(float((new - old).norm() / old.norm()), rel=1e-4)
    assert measured == {}


def test_of_a_large_matrix_all_columns_are_looked_at() -> None:
    matrix = torch.arange(768).expand(5000, 768).contiguous()
    (sample,) = looked_at([matrix])
    assert 3900 < len(sample) <= 4096
    assert sample.unique().numel() == 768
    (whole,) = looked_at([torch.arange(12.0).view(3, 4)])
    assert whole.tolist() == list(range(12))


def test_what_is_unhealthy_for_a_while_is_said_once() -> None:
    watch, most = Watch(), HEALTHY["update_ratio_layers"].most
    outlier = [watch.warnings(update, {"update_ratio_layers": most * (50 if update == 2 else 0.5)}) for update in range(9)]
    assert outlier == [[]] * 9
    bad = [watch.warnings(update, {"update_ratio_layers": 2 * most, "loss": 0.7}) for update in range(9, 30)]
    assert sum(map(len, bad)) == 1


def test_a_run_looks_every_tenth_update_and_warns_of_a_rate_that_overwrites_the_layers(
    tokenized: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how: dict[str, Any] = {"model": "tiny", "num_updates": 45, "global_batch_size": 8, "optimizer": "sophia"}
    for name, rate in (("sound", 1e-4), ("wild", 0.5)):
        train(data_dir=tokenized("sst2"), output_dir=tmp_path / name, learning_rate=rate, **how)
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        looked = [line["update"] for line in lines if "update_ratio_layers" in line]
        assert looked == [1, 11, 21, 31, 41] == [line["update"] for line in lines if "win_rate" in line]
        assert {key for key in lines[0] if "ratio" in key} == {
            f"update_ratio_{group}" for group in ("embeddings", "layers", "head", "vectors")
        }
        assert [line["hessian_share"] for line in lines if "hessian_share" in line] == pytest.approx([1.0] * 5, abs=0.1)
        overwritten = [line for line in capsys.readouterr().err.splitlines() if "update_ratio_layers is" in line]
        assert len(overwritten) == (1 if name == "wild" else 0)
