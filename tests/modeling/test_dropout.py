"""Fast dropout drops as F.dropout does: as often, scaled so, and the same in the gradient."""

import pytest
import torch
from torch import nn

from components.modeling.dropout import drop, use_fast_dropout


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_as_many_are_dropped_as_asked_and_the_mean_stays(probability: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    states = torch.ones(1000, 1003, dtype=dtype, requires_grad=True)
    dropped = drop(states, probability)
    assert dropped.dtype == dtype
    kept = dropped != 0
    deviation = (probability * (1 - probability) / states.numel()) ** 0.5
    assert abs(1 - kept.double().mean() - probability) < 4 * deviation + 2**-17
    torch.testing.assert_close(
        dropped[kept],
        torch.full_like(dropped[kept], 1 / (1 - probability)),
        rtol=1e-4 if dtype != torch.bfloat16 else 1e-2,
        atol=0.0,
    )
    for axis in (0, 1):  # no row or column is special
        assert abs(kept.double().mean(axis) - (1 - probability)).max() < 0.08
    dropped.sum().backward()
    assert states.grad is not None
    assert torch.equal(states.grad, dropped.detach())


def test_neighbours_are_independent_and_seeds_count() -> None:
    torch.manual_seed(1)
    kept = (drop(torch.ones(1_000_000), 0.5) != 0).double()
    for shift in (1, 2, 3, 4, 64):
        assert abs(((kept[shift:] - 0.5) * (kept[:-shift] - 0.5)).mean()) < 0.001
    torch.manual_seed(1)
    assert torch.equal((drop(torch.ones(1_000_000), 0.5) != 0).double(), kept)
    assert not torch.equal((drop(torch.ones(1_000_000), 0.5) != 0).double(), kept)


def test_the_ends_of_the_range() -> None:
    states = torch.randn(7)
    assert torch.equal(drop(states, 0.0), states)
    assert torch.equal(drop(states, 1.0), torch.zeros(7))


def test_modules_drop_in_training_alone() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Identity())
    use_fast_dropout(model)
    states = torch.ones(100)
    assert (model(states) == 0).any()
    assert torch.equal(model.eval()(states), states)
