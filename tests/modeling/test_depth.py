"""Layers that are left out are not computed, and those that stay make up for them."""

from typing import Any

import pytest
import torch
from networks import batch
from networks import model as model_of
from torch import Tensor

from components.errors import UserError
from components.modeling.abilities import PRE_LN, check_depth
from components.modeling.compiled import compile_layers
from components.modeling.depth import dropped_parameters, encoder_layers, make_droppable, set_active
from components.modeling.packed import pack
from components.modeling.prepare import prepare_model

CPU = torch.device("cpu")
LENGTHS = [7, 7, 4, 1]


def droppable(family: str, packed: bool, scaled: bool = False) -> Any:
    network = model_of(family)
    if packed:
        pack(network)
    make_droppable(network, scaled)
    return network


def logits_of(network: Any, packed: bool) -> Tensor:
    examples = batch(LENGTHS, packed)
    logits: Tensor = network(input_ids=examples.input_ids, **examples.context).logits
    return logits


def counted(network: Any) -> list[int]:
    """Filled with the numbers of the layers whose attention or feed-forward part computes, as it is called."""
    called: list[int] = []
    for number, layer in enumerate(encoder_layers(network)):
        for part in (layer.attention, layer.intermediate, layer.output):
            part.register_forward_hook(lambda *_, number=number: called.append(number))
    return called


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("family", ["bert", *PRE_LN])
def test_a_dropped_layer_is_not_computed_and_the_rest_is_the_model_without_it(family: str, packed: bool) -> None:
    """Packed, the last of those that compute keeps first tokens alone. With none the embeddings reach the head."""
    network, reference = droppable(family, packed), model_of(family)
    called, layers = counted(network), list(encoder_layers(reference))
    for kept in ([0, 1, 2], [0, 1], [2], [1], []):
        called.clear()
        set_active(network, dict.fromkeys(kept, 1.0))
        reference.base_model.encoder.layer = torch.nn.ModuleList([layers[number] for number in kept])
        logits, wanted = logits_of(network, packed), logits_of(reference, False)
        assert called == [number for number in kept for _ in range(3)]
        torch.testing.assert_close(logits, wanted, rtol=1e-12, atol=1e-14)
        for each, outputs in ((network, logits), (reference, wanted)):
            each.zero_grad()
            outputs.square().sum().backward()
        got = network.get_input_embeddings().weight.grad
        torch.testing.assert_close(got, reference.get_input_embeddings().weight.grad, rtol=1e-9, atol=1e-13)
        dropped = {id(weight) for weight in dropped_parameters(network)}
        for number, layer in enumerate(encoder_layers(network)):
            for weight in layer.parameters():
                assert (weight.grad is None) == (id(weight) in dropped) == (number not in kept)


@pytest.mark.parametrize("packed", [False, True])
def test_both_residual_branches_are_scaled_and_nothing_else(packed: bool) -> None:
    """As the projections' weights and biases times the factor have it."""
    family, factors = PRE_LN[0], {0: 1.25, 2: 2.0}
    network, reference = droppable(family, packed, scaled=True), model_of(family)
    set_active(network, factors)
    del reference.base_model.encoder.layer[1]
    with torch.no_grad():
        for layer, factor in zip(encoder_layers(reference), factors.values(), strict=True):
            for part in (layer.attention.output, layer.output):
                part.dense.weight *= factor
                part.dense.bias *= factor
    torch.testing.assert_close(logits_of(network, packed), logits_of(reference, False), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("packed", [False, True])
def test_evaluation_uses_all_layers_unscaled(packed: bool) -> None:
    network, reference = droppable(PRE_LN[0], packed, scaled=True), model_of(PRE_LN[0])
    set_active(network, {0: 3.0})
    called = counted(network.eval())
    wanted = logits_of(reference.eval(), False)
    torch.testing.assert_close(logits_of(network, packed), wanted, rtol=1e-12, atol=1e-14)
    assert called == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dropped_parameters(network) == []


def test_all_layers_with_factor_one_are_the_untouched_model() -> None:
    network, reference = droppable(PRE_LN[0], False, scaled=True), model_of(PRE_LN[0])
    for active in (None, dict.fromkeys(range(3), 1.0)):
        set_active(network, active)
        assert torch.equal(logits_of(network, False), logits_of(reference, False))


def test_what_is_saved_is_an_ordinary_model(tmp_path: Any) -> None:
    network = droppable(PRE_LN[0], True, scaled=True)
    set_active(network, {1: 2.0})
    network.save_pretrained(tmp_path)
    loaded = type(network).from_pretrained(tmp_path, dtype="float64").train()
    assert loaded.state_dict().keys() == model_of(PRE_LN[0]).state_dict().keys()
    torch.testing.assert_close(logits_of(loaded, False), logits_of(model_of(PRE_LN[0]), False), rtol=1e-12, atol=1e-14)


def test_compiled_layers_are_compiled_once_for_all_draws() -> None:
    torch._dynamo.reset()
    network, reference = (model_of(PRE_LN[0], num_hidden_layers=2) for _ in range(2))
    for each in (network, reference):
        prepare_model(each, CPU, "pld")
    compile_layers(network)
    draws: list[dict[int, float]] = [{0: 1.0, 1: 1.0}, {0: 1.5}, {1: 1.7}, {0: 1.2, 1: 2.0}]
    for number, draw in enumerate([*draws, {}, *({key: 1 + value for key, value in draw.items()} for draw in draws)]):
        for each in (network, reference):
            set_active(each, draw)
        with torch.compiler.set_stance("default" if number < len(draws) else "fail_on_recompile"):
            compiled = logits_of(network, True)
            compiled.sum().backward()
        torch.testing.assert_close(compiled, logits_of(reference, True), rtol=1e-10, atol=1e-12)


def test_what_a_model_cannot_leave_out_is_one_line() -> None:
    with pytest.raises(
        UserError, match="depth pld: bert has no LayerNorm before each sub-layer: give depth layerdrop, or a mod"
    ):
        prepare_model(model_of("bert"), CPU, "pld")
    with pytest.raises(UserError, match=r"depth layerdrop: distilbert is not one of bert, .*: give depth all"):
        check_depth("layerdrop", "distilbert")
    for depth, family in (("all", "distilbert"), ("layerdrop", "bert"), ("layerdrop", PRE_LN[0]), ("pld", PRE_LN[0])):
        check_depth(depth, family)
