"""Twice the layers, of which the new ones begin as the old."""

from typing import Any

import pytest
import torch
from networks import batch, model
from torch import Tensor

from components.errors import UserError
from components.modeling.abilities import PRE_LN
from components.modeling.grow import check_growth, doubled
from components.modeling.packed import is_packed, pack

EXAMPLES = {packed: batch([7, 7, 4, 1], packed) for packed in (False, True)}


def logits_of(network: Any, packed: bool = False) -> Tensor:
    logits: Tensor = network(input_ids=EXAMPLES[packed].input_ids, **EXAMPLES[packed].context).logits
    return logits


@pytest.mark.parametrize("family", ["bert", *PRE_LN])
def test_new_layers_begin_as_the_old_in_their_order(family: str) -> None:
    network = model(family)
    grown: Any = doubled(network)
    assert grown.config.num_hidden_layers == len(grown.base_model.encoder.layer) == 6
    assert network.config.num_hidden_layers == len(network.base_model.encoder.layer) == 3
    for number, layer in enumerate(grown.base_model.encoder.layer):
        old = network.base_model.encoder.layer[number % 3].state_dict()
        assert all(torch.equal(weight, old[name]) for name, weight in layer.state_dict().items())
    rest = {name: weight for name, weight in grown.named_parameters() if ".layer." not in name}
    assert all(torch.equal(weight, dict(network.named_parameters())[name]) for name, weight in rest.items())
    assert not {id(weight) for weight in grown.parameters()} & {id(weight) for weight in network.parameters()}


def test_zero_projections_keep_the_function_and_have_a_gradient() -> None:
    network = model(PRE_LN[0])
    grown: Any = doubled(network, zero_init=True).train()
    logits = logits_of(grown)
    assert torch.equal(logits, logits_of(network))
    logits.square().sum().backward()
    for layer in grown.base_model.encoder.layer[3:]:
        for part in (layer.attention.output.dense, layer.output.dense):
            assert not part.weight.any()
            assert part.weight.grad.abs().max() > 0
    again = doubled(grown.eval(), zero_init=True).eval()
    assert torch.equal(logits_of(again), logits_of(network.eval()))


@pytest.mark.parametrize("family", ["bert", *PRE_LN])
def test_plain_copies_do_not_keep_the_function(family: str) -> None:
    network = model(family, initializer_range=0.3)
    difference = logits_of(doubled(network).train()) - logits_of(network)
    assert difference.abs().max() > 0.1 * logits_of(network).abs().max()


def test_what_grows_out_of_a_packed_model_can_be_packed() -> None:
    network = model(PRE_LN[0])
    pack(network)
    grown = doubled(network, zero_init=True).train()
    assert not is_packed(grown)
    pack(grown)
    torch.testing.assert_close(logits_of(grown, True), logits_of(network, True), rtol=1e-12, atol=1e-14)


def test_a_model_that_cannot_grow_is_one_line() -> None:
    with pytest.raises(UserError, match=r"grow_zero_init: bert has LayerNorm after the residual sum, .*: leave it out"):
        doubled(model("bert"), zero_init=True)
    with pytest.raises(UserError, match=r"grow_at: distilbert is not one of bert, .*: leave it out"):
        check_growth("distilbert", zero_init=False)
