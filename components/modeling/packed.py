"""No work on padding, nor on what nobody reads: the encoder sees an update's tokens end to end.

A batch's examples are padded to the longest only where they must lie side by side: in the embeddings, where noise is added, and
inside the attention itself. Between, all tokens of the batch are one sequence, as in flash-attention's unpadded BERT (Zeng et
al., arXiv 2208.08124). And since a head reads few positions, a classification head the first token alone, the last layer
computes its output and feed-forward parts for these alone. Losses and gradients are those of the padded model, but for
rounding.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from components.modeling.abilities import can_pack
from components.modeling.attention import Heads, attend, takes_lengths
from components.modeling.depth import computes
from components.modeling.packing import Packing

ATTENTION = "packed"


def pack(model: PreTrainedModel) -> None:
    """Prepare the model for packed batches, if its family is known.

    From then on it needs `packing=` beside the attention mask, as `Batch.context` gives it.
    """
    if not can_pack(model):
        return
    AttentionInterface.register(ATTENTION, attend)
    model.set_attn_implementation(ATTENTION)
    model.register_forward_hook(_leave_filling, with_kwargs=True)
    encoder: Any = model.base_model.encoder
    encoder.register_forward_pre_hook(_pack, with_kwargs=True)
    encoder.register_forward_hook(_read_as_sequences, with_kwargs=True)
    for layer in encoder.layer:
        layer.attention.register_forward_pre_hook(_tell_output, with_kwargs=True)
        layer.attention.output.register_forward_pre_hook(_keep_read)


def is_packed(model: PreTrainedModel) -> bool:
    """Has `pack` prepared it?"""
    return bool(model.config._attn_implementation == ATTENTION)


def _pack(encoder: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    packing: Packing = kwargs["packing"]
    config: Any = encoder.config
    by_lengths = takes_lengths(args[0], packing, config.hidden_size // config.num_attention_heads)
    heads = [] if by_lengths else [Heads.of(run, config.num_attention_heads) for run in packing.runs()]
    computing = [layer for layer in encoder.layer if computes(layer)]  # type: ignore[union-attr,operator]
    last = computing[-1].attention if computing else None
    return (packing.pack(args[0]), *args[1:]), {**kwargs, "heads": heads, "last": last}


def _tell_output(attention: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
    """After the attention of the last layer that computes only what is read goes on."""
    read = kwargs["packing"].read if kwargs["last"] is attention else None
    attention.output.read = read  # type: ignore[union-attr,assignment]


def _keep_read(output: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    read: Any = output.read
    return None if read is None else tuple(states.index_select(1, read) for states in args)


def _read_as_sequences(encoder: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """(1, num_read, features) to (num_read, 1, features): a sequence of one token each."""
    states = output.last_hidden_state
    if kwargs["last"] is None:  # no layer computed
        states = states.index_select(1, kwargs["packing"].read)
    output.last_hidden_state = states.transpose(0, 1)
    return output


def _leave_filling(model: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """(num_read, outputs) to (batch, outputs)."""
    output.logits = output.logits[: len(kwargs["packing"].lengths)]
    return output
