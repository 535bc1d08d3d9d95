import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from components.errors import UserError
from components.train.settings import settle
from components.training.budget import Progress
from components.training.optimizers import build_optimizer, peak_learning_rate, schedule, trust_ratios
from components.training.optimizers.lamb import Lamb


def factor(update: int, num_updates: int, num_warmup: int) -> float:
    progress = Progress(update, update / num_updates, seed=0, step=1 / num_updates)
    return schedule(progress, num_warmup / num_updates)


@pytest.mark.parametrize("num_warmup", [0, 1, 7])
@pytest.mark.parametrize("num_updates", [7, 100])
def test_the_learning_rate_rises_and_falls_to_exactly_zero(num_updates: int, num_warmup: int) -> None:
    factors = [factor(update, num_updates, num_warmup) for update in range(num_updates + 1)]
    assert factors[-1] == 0.0 == factor(num_updates + 5, num_updates, num_warmup)  # never negative
    assert all(0 < each <= 1 for each in factors[:-1])
    peak = factors.index(max(factors))
    assert peak == min(num_warmup, num_updates - 1)
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_without_warmup_the_schedule_starts_at_the_peak() -> None:
    assert [factor(update, 4, 0) for update in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("adamw", 0.0, 32), 5e-5),
        (("adamw", 0.0, 128), 1e-4),
        (("lamb", 0.0, 512), 8e-4),
        (("adamw", 2e-5, 1024), 2e-5),  # a rate that is given is for the batch that is used
        (("adamw", 2e-5, 1024, 32), 2e-5 * 32**0.5),
        (("adamw", 2e-5, 1024, 32, "linear"), 6.4e-4),
        (("adamw", 2e-5, 1024, 32, "none"), 2e-5),
        (("lamb", 0.0, 64, 16, "linear"), 8e-4),
    ],
)
def test_learning_rates_scale_from_a_base_pair(arguments: Any, expected: float) -> None:
    assert peak_learning_rate(*arguments) == pytest.approx(expected)


def weights() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (4, 4), (2, 6)]
    made = [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]
    return [*made, torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.float64))]


def timm_lamb() -> Any:
    """timm's LAMB from its one file: the package itself wants torchvision."""
    found = importlib.util.find_spec("timm")
    if found is None or not found.submodule_search_locations:
        pytest.fail("timm is not installed: pip install --no-deps timm")
    package = ModuleType("timm_optim")
    package.__path__ = [str(Path(found.submodule_search_locations[0]) / "optim")]
    sys.modules["timm_optim"] = package
    return importlib.import_module("timm_optim.lamb").Lamb


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.3])
def test_lamb_is_timms_for_ten_updates(weight_decay: float, dtype: torch.dtype) -> None:
    ours, theirs = ([torch.nn.Parameter(weight.data.to(dtype)) for weight in weights()] for _ in range(2))
    optimizer = Lamb([{"params": ours, "weight_decay": weight_decay}], lr=0.02)
    oracle = timm_lamb()(theirs, lr=0.02, weight_decay=weight_decay, always_adapt=True, max_grad_norm=None)
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        for mine, weight in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(weight.shape, generator=generator, dtype=dtype)
            weight.grad = mine.grad.clone()
        optimizer.step()
        oracle.step()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for mine, weight in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.data, weight.data, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.3])
def test_lamb_is_algorithm_2_for_ten_updates(weight_decay: float) -> None:
    """Against a slow reference: one tensor at a time, straight from the paper."""
    ours, theirs = weights(), weights()
    optimizer = Lamb([{"params": ours, "weight_decay": weight_decay}], lr=0.02)
    first, second = ([torch.zeros_like(weight) for weight in theirs] for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    for update in range(1, 11):
        for number, (mine, weight) in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            mine.grad = gradient.clone()
            first[number] = 0.9 * first[number] + 0.1 * gradient
            second[number] = 0.999 * second[number] + 0.001 * gradient**2
            m_hat, v_hat = first[number] / (1 - 0.9**update), second[number] / (1 - 0.999**update)
            u = m_hat / (v_hat**0.5 + 1e-6) + weight_decay * weight.data
            ratio = weight.data.norm() / u.norm() if weight.data.norm() > 0 else 1.0
            weight.data = weight.data - 0.02 * ratio * u
        optimizer.step()
    for mine, weight in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.data, weight.data, rtol=1e-9, atol=1e-12)


def test_lamb_is_its_formula_and_leaves_vectors_at_ratio_one() -> None:
    matrix, bias = torch.nn.Parameter(torch.full((2, 2), 3.0)), torch.nn.Parameter(torch.full((2,), 3.0))
    optimizer = Lamb([{"params": [matrix], "weight_decay": 0.1}, {"params": [bias], "adapt": False}], lr=0.5)
    matrix.grad, bias.grad = torch.full((2, 2), 0.7), torch.full((2,), 0.7)
    optimizer.step()
    # first update: mhat / sqrt(vhat) is the sign; u = 1 + 0.1 * 3, ratio 3 / u: the step is 0.5 * 3
    torch.testing.assert_close(matrix.data, torch.full((2, 2), 1.5))
    torch.testing.assert_close(bias.data, torch.full((2,), 2.5), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_biases_and_norms_do_not_decay(name: str) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    optimizer = build_optimizer(name, network, 1e-3, 0.1)
    decays = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert {key: decays[id(weight)] for key, weight in network.named_parameters()} == {
        "0.weight": 0.1,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }


def test_trust_ratios_are_known_after_a_step_and_are_one_for_zero_norms() -> None:
    ours = weights()  # the last is all zeros
    optimizer = Lamb([{"params": ours}], lr=0.02)
    assert trust_ratios(optimizer) == {}
    for weight in ours:
        weight.grad = torch.ones_like(weight)
    before = [weight.norm().item() for weight in ours]
    optimizer.step()
    # the first direction is all ones: its norm is the root of the number of elements
    ratios = [norm / weight.numel() ** 0.5 for norm, weight in zip(before[:-1], ours, strict=False)] + [1.0]
    assert optimizer.trust_ratios is not None
    assert optimizer.trust_ratios.tolist() == pytest.approx(ratios, rel=1e-5)
    spread = {name: ratio.item() for name, ratio in trust_ratios(optimizer).items()}
    assert spread["trust_ratio_min"] == pytest.approx(min(ratios), rel=1e-5)
    assert spread["trust_ratio_max"] == pytest.approx(max(ratios), rel=1e-5)
    assert trust_ratios(torch.optim.AdamW(ours)) == {}


def test_negative_rates_are_refused() -> None:
    for name in ("learning_rate", "weight_decay", "max_grad_norm"):
        with pytest.raises(UserError, match=rf"{name} is -0\.1: give 0 or more"):
            settle({name: -0.1}, 0)
