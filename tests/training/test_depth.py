"""Which layers an update computes, and what becomes of those that it leaves out."""

import functools
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import batch, model, save_pre_ln
from run_methods import NOISE
from safetensors.torch import load_file
from torch import Tensor

from components.errors import UserError
from components.modeling.abilities import PRE_LN
from components.modeling.depth import dropped_parameters, encoder_layers, left_alone, make_droppable, set_active
from components.modeling.packed import pack
from components.train.stage import train
from components.training.budget import Progress
from components.training.depth import All, Dropping, build_depth
from components.training.methods import METHODS, build_method
from components.training.objectives import Classification
from components.training.optimizers import OPTIMIZERS, build_optimizer

NUM_LAYERS, NUM_DRAWS = 6, 2000
LAST = 0.999
"""Share of the budget: theta has come down."""


@functools.cache
def draws(depth: Dropping, share: float = LAST) -> list[Any]:
    return [depth.active(Progress(update, share, seed=3), NUM_LAYERS) for update in range(NUM_DRAWS)]


# --- the schedule and the draws ---


def test_theta_falls_from_one_to_its_end_over_the_share_of_the_budget() -> None:
    depth = Dropping(keep=0.5, rate=100.0, scaled=True)
    assert depth.theta(0.0) == 1.0
    assert depth.theta(0.01) == pytest.approx(0.5 + 0.5 / math.e)
    assert depth.theta(1.0) == pytest.approx(0.5, abs=1e-12)
    assert depth.probabilities(0.0, 12) == [1.0] * 12
    late = depth.probabilities(1.0, 12)
    assert late[0] == pytest.approx(1 - 1 / 24)
    assert late[-1] == pytest.approx(0.5)
    assert sum(late) == pytest.approx(8.75)  # (3 L - 1) / 4


def test_layers_compute_as_often_as_their_probability_says() -> None:
    depth = Dropping(keep=0.3, rate=100.0, scaled=True)
    every = draws(depth)
    for layer, probability in enumerate(depth.probabilities(LAST, NUM_LAYERS)):
        rate = sum(layer in active for active in every) / NUM_DRAWS
        assert abs(rate - probability) < 4 * math.sqrt(probability * (1 - probability) / NUM_DRAWS)
    together = sum(len(active) for active in every) / NUM_DRAWS
    assert together == pytest.approx(sum(depth.probabilities(LAST, NUM_LAYERS)), abs=0.1)


def test_a_draw_is_of_seed_update_and_layer_and_of_nothing_else() -> None:
    depth = Dropping(keep=0.5, rate=100.0, scaled=True)
    assert draws(depth)[7] == depth.active(Progress(7, LAST, seed=3), NUM_LAYERS)
    other = [depth.active(Progress(update, LAST, seed=4), NUM_LAYERS) for update in range(NUM_DRAWS)]
    same = sum((4 in one) == (4 in two) for one, two in zip(draws(depth), other, strict=True)) / NUM_DRAWS
    keep = depth.probabilities(LAST, NUM_LAYERS)[4]
    assert same == pytest.approx(keep**2 + (1 - keep) ** 2, abs=0.05)  # as of independent draws
    both = sum(4 in active and 5 in active for active in draws(depth)) / NUM_DRAWS
    assert both == pytest.approx(keep * 0.5, abs=0.05)


def test_each_layer_is_unbiased() -> None:
    """2,000 draws of each: a linear residual branch, as PreLN's are in their projections, has the mean of the whole."""
    network = model(PRE_LN[0], num_hidden_layers=NUM_LAYERS)
    make_droppable(network, scaled=True)
    every = draws(depth := Dropping(keep=0.5, rate=100.0, scaled=True))
    for number, layer in enumerate(encoder_layers(network)):
        factors = Counter(active.get(number, 0.0) for active in every)
        for part in (layer.attention.output, layer.output):
            branch = torch.randn(2, 5, part.dense.in_features, dtype=torch.float64)
            residual, total = torch.randn(2, 5, 16, dtype=torch.float64), torch.zeros(2, 5, 16, dtype=torch.float64)
            for factor, times in factors.items():
                set_active(network, {number: factor} if factor else {})
                total += times * (residual if layer.is_dropped else part(branch, residual))
            ratio = ((total / NUM_DRAWS - residual) / part.dense(branch)).mean().item()
            keep = depth.probabilities(LAST, NUM_LAYERS)[number]
            assert abs(ratio - 1) < 4 * math.sqrt((1 / keep - 1) / NUM_DRAWS)


def test_what_was_drawn_and_what_scales_is_the_same_probability() -> None:
    for share in (0.0, 0.003, LAST):
        depth = Dropping(keep=0.5, rate=100.0, scaled=True)
        probabilities = depth.probabilities(share, NUM_LAYERS)
        for update in range(20):
            active = depth.active(Progress(update, share, 0), NUM_LAYERS)
            assert active == {layer: 1 / probabilities[layer] for layer in active}
    unscaled = Dropping(0.5, 100.0, scaled=False).active(Progress(1, LAST, 0), NUM_LAYERS)
    assert set(unscaled.values()) == {1.0}


def test_all_layers_compute_where_none_is_to_be_dropped() -> None:
    assert build_depth("all", 0.5, 100.0) == All()
    assert build_depth("all", 0.5, 100.0).active(Progress(3, 0.5, 0), 4) is None
    whole = dict.fromkeys(range(4), 1.0)
    assert Dropping(1.0, 100.0, scaled=True).active(Progress(3, 0.5, 0), 4) == whole
    assert Dropping(0.5, 0.0, scaled=True).active(Progress(3, 0.5, 0), 4) == whole  # theta stays 1


# --- an update ---


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_all_passes_of_an_update_compute_the_same_layers(method: str, packed: bool) -> None:
    """Clean, ascent and noisy ones, forward and back; and the divergence of noise that is none is none."""
    network = model(PRE_LN[0], num_hidden_layers=4)
    if packed:
        pack(network)
    make_droppable(network, scaled=True)
    passes: list[list[int]] = []
    network.register_forward_pre_hook(lambda *_: passes.append([]))
    for number, layer in enumerate(encoder_layers(network)):
        layer.output.register_forward_hook(lambda *_, number=number: passes[-1].append(number))
    noise = {**NOISE, "perturbation_start": 0.0, "perturbation_steps": 2}
    the_method, examples = build_method(method, noise), batch([7, 7, 4, 1], packed)
    progress = Progress(5, 0.5, 0)
    set_active(network, {0: 1.1, 2: 1.4})
    for loss in the_method.losses(Classification(), network, examples, progress):
        loss.total.backward()
    assert passes == [[0, 2]] * int(the_method.passes(progress).forwards)
    assert {id(weight) for weight in network.parameters() if weight.grad is None} >= {
        id(weight) for weight in dropped_parameters(network)
    }
    if method in ("scala", "smart"):
        still = build_method(method, {**noise, "perturbation_radius": 0.0})
        (loss,) = still.losses(Classification(), network, examples, progress)
        assert loss.parts["divergence"].abs() < 1e-12


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_dropped_layer_is_left_alone_by_the_optimizer(optimizer: str) -> None:
    """Weights and moments; with a gradient of zeros in its place they would move."""
    network = model(PRE_LN[0])
    make_droppable(network, scaled=True)
    moving = build_optimizer(optimizer, network, 1e-2, weight_decay=0.1)
    examples = batch([7, 4], False)

    def update(active: dict[int, float]) -> list[Tensor]:
        """The tensors of layer 1 before and after."""
        set_active(network, active)
        Classification().losses(Classification().outputs(network, examples), examples).sum().backward()
        before = of_layer()
        dropped = dropped_parameters(network)
        gradients = [weight.grad for weight in dropped]
        with left_alone(dropped):
            moving.step()
        assert all(weight.grad is gradient for weight, gradient in zip(dropped, gradients, strict=True))
        moving.zero_grad(set_to_none=False)
        return [(one - other).abs().max() for one, other in zip(before, of_layer(), strict=True)]

    def of_layer() -> list[Tensor]:
        weights = list(network.base_model.encoder.layer[1].parameters())
        held = [value for weight in weights for value in moving.state[weight].values()]
        return [each.detach().clone() for each in (*weights, *held)]

    set_active(network, None)
    Classification().losses(Classification().outputs(network, examples), examples).sum().backward()
    moving.step()
    moving.zero_grad(set_to_none=False)
    assert all(change == 0 for change in update({0: 1.0, 2: 1.0}))
    assert any(change > 0 for change in update({0: 1.0, 1: 1.0}))
    moving.step()  # what zeros would do
    assert any(change > 0 for change in update({0: 1.0, 1: 1.0}))


# --- a run ---


@pytest.fixture(scope="module")
def pre_ln(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_pre_ln(tmp_path_factory.mktemp("models") / "pre-ln"))


def run(data_dir: Path, output_dir: Path, **given: Any) -> Path:
    how = {"model": "tiny", "learning_rate": 1e-3, "num_updates": 6, "global_batch_size": 33, **given}
    train(data_dir=data_dir, output_dir=output_dir, **how)
    return output_dir


def layers_of(folder: Path) -> list[int]:
    return [json.loads(line)["layers"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_log_has_the_layers_that_were_drawn(tokenized: Callable[[str], Path], tmp_path: Path, pre_ln: str) -> None:
    how = {"num_updates": 12, "depth_keep": 0.2, "depth_rate": 30.0, "seed": 5}
    for model_name, depth, num_layers in ((pre_ln, "pld", 3), ("tiny", "layerdrop", 2)):
        folder = run(tokenized("rte"), tmp_path / depth, model=model_name, depth=depth, **how)
        drawn = build_depth(depth, 0.2, 30.0)
        expected = [len(drawn.active(Progress(update, update / 12, 5), num_layers) or ()) for update in range(12)]
        assert layers_of(folder) == expected
        assert len(set(expected)) > 1
        assert expected[0] == num_layers
        assert json.loads((folder / "training.json").read_text())["took_effect"]["depth"] == depth


def test_keeping_all_layers_is_plain_training_to_the_bit(tokenized: Callable[[str], Path], tmp_path: Path, pre_ln: str) -> None:
    plain = run(tokenized("rte"), tmp_path / "plain", model=pre_ln)
    kept = run(tokenized("rte"), tmp_path / "kept", model=pre_ln, depth="pld", depth_keep=1.0)
    dropped = run(tokenized("rte"), tmp_path / "dropped", model=pre_ln, depth="pld")
    weights = [load_file(folder / "model.safetensors") for folder in (plain, kept, dropped)]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    assert not all(torch.equal(weight, weights[2][name]) for name, weight in weights[0].items())


def test_a_model_that_cannot_is_one_line_before_anything_slow(tokenized: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="depth pld: bert has no LayerNorm before each sub-layer"):
        run(tokenized("rte"), tmp_path / "m", depth="pld")
    with pytest.raises(UserError, match=r"depth_keep is 0\.0: give above 0, at most 1"):
        run(tokenized("rte"), tmp_path / "m", depth="layerdrop", depth_keep=0.0)
    with pytest.raises(UserError, match="depth is 'some': give one of all, pld, layerdrop"):
        run(tokenized("rte"), tmp_path / "m", depth="some")
    assert list(tmp_path.iterdir()) == []
