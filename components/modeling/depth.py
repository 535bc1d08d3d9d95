"""Layers that are left out of an update: such a one hands on what it is given, and nothing of it is computed.

With LayerNorm before each sub-layer (PreLN) a layer that stays scales both of its residual branches, so that their mean over
the draws is that of the whole model (Zhang and He, arXiv 2010.13369, switchable transformer blocks):

    h = x + G/p * Attention(LN(x)),     out = h + G/p * FeedForward(LN(h)),     G ~ Bernoulli(p), one draw for both

In evaluation mode all layers compute, unscaled.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def encoder_layers(model: PreTrainedModel) -> Iterable[Any]:
    """Of a model of BERT's build; none of another."""
    return getattr(getattr(model.base_model, "encoder", None), "layer", ())


def make_droppable(model: PreTrainedModel, scaled: bool) -> None:
    """Let `set_active` say which layers compute; until then all do.

    Args:
        scaled: The residual branches get a factor; of PreLN models alone.
    """
    for layer in encoder_layers(model):
        layer.is_dropped = False
        layer.forward = _forward_of(layer, layer.forward)
        for part in (layer.attention.output, layer.output) if scaled else ():
            part.forward = _scaled_sum_of(part)
    set_active(model, None)


def set_active(model: PreTrainedModel, active: Mapping[int, float] | None) -> None:
    """Which layers compute from now on in training mode.

    Args:
        active: Number of a layer, from 0 -> the factor on its residual branches. None: all layers, with 1.
    """
    for number, layer in enumerate(layer for layer in encoder_layers(model) if hasattr(layer, "is_dropped")):
        layer.is_dropped = active is not None and number not in active
        # A tensor: compiled layers are compiled anew for every other number.
        scale = torch.tensor(1.0 if active is None else active.get(number, 0.0), dtype=torch.float64)
        layer.attention.output.scale = layer.output.scale = scale


def computes(layer: nn.Module) -> bool:
    return not (layer.training and getattr(layer, "is_dropped", False))


def dropped_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Those of the layers that do not compute."""
    return [weight for layer in encoder_layers(model) if not computes(layer) for weight in layer.parameters()]


def _forward_of(layer: nn.Module, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def compute_or_hand_on(states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return forward(states, *args, **kwargs) if computes(layer) else states

    return compute_or_hand_on


def _scaled_sum_of(part: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Instead of the forward of a PreLN sub-layer's output: projection, dropout and residual sum."""

    def sum_up(branch: Tensor, residual: Tensor) -> Tensor:
        branch = part.dropout(part.dense(branch))
        return residual + (branch * part.scale if part.training else branch)

    return sum_up


@contextmanager
def left_alone(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within the block they have no gradient, so that optimizers pass them over: a gradient of zeros would move a weight by its
    moments and its decay, by a whole learning rate where only signs count (Lion), and the moments would fade.
    """
    gradients = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    try:
        yield
    finally:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient  # the same tensor, where DDP looks for it
