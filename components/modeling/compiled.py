"""torch.compile for what an encoder layer does to each token by itself: feed-forward, dropout, residual, LayerNorm.

A packed micro-batch has as many tokens as it has, so the number is a symbol and nothing is compiled twice; attention, which is
the only part that needs lengths, stays as it is. A padded model would have to be compiled for every length.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from components.errors import UserError
from components.modeling.abilities import PACKABLE
from components.modeling.packed import is_packed


def compile_layers(model: PreTrainedModel) -> None:
    """Compile a model that `pack` has prepared; at its first use.

    Raises:
        UserError: its family cannot be packed.
    """
    if not is_packed(model):
        raise UserError(f"compile: {model.config.model_type} is not one of {', '.join(PACKABLE)}: leave it out")
    torch._functorch.config.donated_buffer = False  # type: ignore[attr-defined]  # the backward pass of noise comes first
    layers: Any = model.base_model.encoder.layer  # type: ignore[union-attr]
    parts: list[nn.Module] = [part for layer in layers for part in (layer.intermediate, layer.output)]
    # The last that computes keeps first tokens alone, by a hook: of layers that may be left out each may be that one.
    whole = [] if any(hasattr(layer, "is_dropped") for layer in layers) else [layer.attention.output for layer in layers[:-1]]
    for part in (*parts, *whole):
        part.compile(dynamic=True)
