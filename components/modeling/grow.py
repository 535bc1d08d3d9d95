"""Twice the layers: those that are there, and a copy of each on top of them.

Progressive stacking (Gong et al., Efficient training of BERT by progressively stacking, ICML 2019). A copy computes something,
so that the function jumps at that moment. A copy whose two output projections are zero hands on what it is given, if LayerNorm
comes before each sub-layer: then the function stays, and the gradient brings the projections up.
"""

import copy
import re

import torch
from transformers import PreTrainedModel

from components.errors import UserError
from components.modeling.abilities import PACKABLE, PRE_LN
from components.modeling.depth import encoder_layers

LAYER = re.compile(r"(.*\.encoder\.layer\.)(\d+)(\..*)")


def check_growth(model_type: str, zero_init: bool) -> None:
    """UserError where a model of this config.model_type cannot grow in that way."""
    if model_type not in PACKABLE:
        raise UserError(f"grow_at: {model_type} is not one of {', '.join(PACKABLE)}: leave it out")
    if zero_init and model_type not in PRE_LN:
        raise UserError(
            f"grow_zero_init: {model_type} has LayerNorm after the residual sum, which no zero makes an identity: leave it "
            f"out, or take a model of family {', '.join(PRE_LN)}"
        )


def source_of(name: str, num_layers: int) -> str:
    """The parameter of a network of `num_layers` that the parameter `name` of one twice as deep begins as."""
    found = LAYER.fullmatch(name)
    return f"{found[1]}{int(found[2]) % num_layers}{found[3]}" if found else name


def doubled(model: PreTrainedModel, zero_init: bool = False) -> PreTrainedModel:
    """A network with twice the layers, which shares nothing with the first: new layer i begins as layer i.

    It is as transformers makes it, on the CPU: what the first was prepared with, it has not.

    Args:
        zero_init: The two output projections of each new layer are zero.

    Raises:
        UserError: the model's family cannot.
    """
    check_growth(model.config.model_type, zero_init)
    num_layers = model.config.num_hidden_layers
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = 2 * num_layers
    grown: PreTrainedModel = type(model)._from_config(config, attn_implementation="sdpa")
    grown.to(model.dtype)  # type: ignore[arg-type]
    before = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in grown.named_parameters():
            weight.copy_(before[source_of(name, num_layers)])
        for layer in list(encoder_layers(grown))[num_layers:] if zero_init else ():
            for part in (layer.attention.output.dense, layer.output.dense):
                part.weight.zero_()
                part.bias.zero_()
    return grown
