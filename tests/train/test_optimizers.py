import pytest
import torch

from components.errors import UserError
from components.train.optimizers import Lamb, build_optimizer, default_learning_rate, schedule


@pytest.mark.parametrize("warmup_ratio", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("num_updates", [1, 7, 100])
def test_the_learning_rate_rises_and_falls_to_exactly_zero(num_updates: int, warmup_ratio: float) -> None:
    factors = [schedule(update, num_updates, warmup_ratio) for update in range(num_updates + 1)]
    assert factors[-1] == 0.0
    assert all(0 < factor <= 1 for factor in factors[:-1])
    peak = factors.index(max(factors))
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_without_warmup_the_schedule_starts_at_the_peak() -> None:
    assert [schedule(update, 4, 0.0) for update in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_default_learning_rates_scale_with_the_square_root_of_the_batch() -> None:
    assert default_learning_rate("adamw", 32) == 5e-5
    assert default_learning_rate("adamw", 128) == pytest.approx(1e-4)
    assert default_learning_rate("lamb", 32 * 16) == pytest.approx(4 * default_learning_rate("lamb", 32))


def weights() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (4, 4), (2, 6)]
    made = [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]
    return [*made, torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.float64))]


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
    optimizer = build_optimizer(name, network, 1e-3, 0.1)  # type: ignore[arg-type]
    decays = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert {key: decays[id(weight)] for key, weight in network.named_parameters()} == {
        "0.weight": 0.1,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }


def test_negative_rates_are_refused() -> None:
    with pytest.raises(UserError, match="weight_decay"):
        build_optimizer("adamw", torch.nn.Linear(1, 1), 1e-3, -0.1)
