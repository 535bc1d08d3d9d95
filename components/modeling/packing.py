"""No work on padding, nor on what nobody reads: the encoder sees an update's tokens end to end.

A batch's examples are padded to the longest only where they must lie side by side: in the embeddings, where noise is added, and
inside the attention itself. Between, all tokens of the batch are one sequence, as in flash-attention's unpadded BERT (Zeng et
al., arXiv 2208.08124). And since a head reads few positions, a classification head the first token alone, the last layer
computes its output and feed-forward parts for these alone. Losses and gradients are those of the padded model, but for
rounding.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from components.modeling.abilities import can_pack
from components.modeling.dropout import drop

ATTENTION = "packed"
SHORTER, WORTH_A_RUN = 0.6, 2000
"""A run of shorter examples begins where they have so few of the tokens before, and so many places of scores are spared."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a padded batch are, among its batch * width places side by side.

    places: (num_tokens,) int64, of each token.  tokens: (batch * width,) int64, of each place; any token where there is none.
    mask: (batch, width) bool.  read: (num_read,) int64, the tokens whose outputs somebody reads: those that begin an example.
    starts: (batch + 1,) int32, the token that each example begins with; last, how many tokens there are.
    All on the batch's device; `places` and `tokens` are None where nothing is padded.  lengths: (batch,) int64, on the CPU.
    """

    lengths: Tensor
    mask: Tensor
    read: Tensor
    starts: Tensor
    places: Tensor | None = None
    tokens: Tensor | None = None

    @classmethod
    def of(cls, lengths: Tensor, width: int, device: torch.device) -> "Packing":
        """lengths: (batch,) int64, on the CPU, none above `width`."""
        mask = torch.arange(width) < lengths[:, None]
        ends = lengths.cumsum(0)
        firsts = ends - lengths
        always = (lengths, *(move(index, device) for index in (mask, firsts, F.pad(ends, (1, 0)).int())))
        if int(lengths.min()) == width:
            return cls(*always)
        tokens = (firsts[:, None] + torch.arange(width)).clamp_(max=int(ends[-1]) - 1).flatten()
        places = mask.flatten().nonzero().squeeze(-1)
        return cls(*always, *(move(index, device) for index in (places, tokens)))

    def pack(self, padded: Tensor) -> Tensor:
        """(batch, width, features) -> (1, num_tokens, features)"""
        flat = padded.flatten(0, 1)
        packed: Tensor = flat if self.places is None else _Take.apply(flat, self.places, self.tokens, self.mask.view(-1, 1))
        return packed[None]

    def runs(self) -> "list[Packing]":
        """The batch as one attention, or on a CPU, where an operator more costs little, as several of like lengths."""
        device = self.mask.device
        sizes = run_sizes(self.lengths.tolist()) if device.type == "cpu" else [1]
        return [self] if len(sizes) == 1 else [Packing.of(run, int(run.max()), device) for run in self.lengths.split(sizes)]


def run_sizes(lengths: list[int]) -> list[int]:
    """How many examples to pad together, one after the other, where the longest come first."""
    sizes, longest = [0], lengths[0]
    for at, length in enumerate(lengths):
        if length <= SHORTER * longest and (len(lengths) - at) * (longest**2 - length**2) > WORTH_A_RUN:
            sizes.append(0)
            longest = length
        if length > longest:
            return [len(lengths)]  # not sorted
        sizes[-1] += 1
    return sizes


@dataclass(frozen=True)
class Heads:
    """Where each head of each token is: among (num_tokens, heads) end to end, and among (batch, heads, width) places.

    into: of each place, a token's head.  out: of each token's head, its place.  mask: (batch * heads * width, 1) bool.
    """

    packing: Packing
    count: int
    into: Tensor | None = None
    out: Tensor | None = None
    mask: Tensor | None = None

    @classmethod
    def of(cls, packing: Packing, count: int) -> "Heads":
        (batch, width), head = packing.mask.shape, torch.arange(count, device=packing.mask.device)
        if packing.places is None or packing.tokens is None:
            return cls(packing, count)
        into = packing.tokens.view(batch, 1, width) * count + head[:, None]
        example, position = packing.places[:, None] // width, packing.places[:, None] % width
        out = (example * count + head) * width + position
        mask = packing.mask[:, None].expand(batch, count, width)
        return cls(packing, count, into.flatten(), out.flatten(), mask.reshape(-1, 1))

    def pad(self, packed: Tensor) -> Tensor:
        """(1, num_tokens, heads * size) -> (batch, heads, width, size). On padding lies anything; it must get no gradient."""
        batch, width = self.packing.mask.shape
        if self.into is None:
            return packed.view(batch, width, self.count, -1).transpose(1, 2)
        rows = packed.view(packed.shape[1] * self.count, -1)
        return _Take.apply(rows, self.into, self.out, None).view(batch, self.count, width, -1)  # type: ignore[no-any-return]

    def pack(self, padded: Tensor) -> Tensor:
        """(batch, heads, width, size) -> (1, num_tokens, heads * size)"""
        if self.out is None:
            return padded.transpose(1, 2).flatten(0, 1).flatten(1)[None]
        packed: Tensor = _Take.apply(padded.flatten(0, 2), self.out, self.into, self.mask)
        return packed.view(1, -1, self.count * padded.shape[-1])


class _Take(torch.autograd.Function):
    """Rows by index; the gradient comes back by an index too, which is faster than adding up rows that may be the same."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, back: Tensor, mask: Tensor | None) -> Tensor:  # type: ignore[override]
        """mask: (rows, 1) bool, of the rows that `index` names; None where the rows it leaves out have no gradient."""
        ctx.save_for_backward(back, mask)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        back, mask = ctx.saved_tensors
        gradient = gradient.index_select(0, back)
        return gradient if mask is None else gradient.mul_(mask), None, None, None


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """To a GPU through pinned memory, so that it need not wait: the next batch is made while this one is computed."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def pack(model: PreTrainedModel) -> None:
    """Prepare the model for packed batches, if its family is known.

    From then on it needs `packing=` beside the attention mask, as `Batch.context` gives it.
    """
    if not can_pack(model):
        return
    AttentionInterface.register(ATTENTION, _attention)
    model.set_attn_implementation(ATTENTION)
    encoder: Any = model.base_model.encoder
    encoder.register_forward_pre_hook(_pack, with_kwargs=True)
    encoder.register_forward_hook(_read_as_sequences)
    for layer in encoder.layer:
        layer.attention.register_forward_pre_hook(_tell_output, with_kwargs=True)
        layer.attention.output.register_forward_pre_hook(_keep_read)


def is_packed(model: PreTrainedModel) -> bool:
    """Has `pack` prepared it?"""
    return bool(model.config._attn_implementation == ATTENTION)


def _pack(encoder: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    packing: Packing = kwargs["packing"]
    config: Any = encoder.config
    by_lengths = _takes_lengths(args[0], packing, config.hidden_size // config.num_attention_heads)
    heads = [] if by_lengths else [Heads.of(run, config.num_attention_heads) for run in packing.runs()]
    last = encoder.layer[-1].attention  # type: ignore[index,union-attr]
    return (packing.pack(args[0]), *args[1:]), {**kwargs, "heads": heads, "last": last}


def _takes_lengths(states: Tensor, packing: Packing, size: int) -> bool:
    """Whether there is a kernel that attends within examples that lie end to end, and is worth it. size: of a head."""
    if packing.places is None or not states.is_cuda or torch.cuda.get_device_capability(states.device) < (8, 0):
        return False  # examples of one length lie side by side as they are
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else states.dtype
    return dtype in (torch.bfloat16, torch.float16) and size % 8 == 0 and size <= 256


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    heads: list[Heads],
    dropout: float,
    scaling: float,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Each example by itself.  query, key, value: (1, heads, num_tokens, size); returns (1, num_tokens, heads * size).

    heads: none where the kernel takes lengths: FlashAttention-2 (Dao, arXiv 2307.08691), torch's own, with dropout.
    """
    if not heads:
        starts, width = packing.starts, int(packing.lengths.max())
        each = (states[0].transpose(0, 1) for states in (query, key, value))
        output = torch.ops.aten._flash_attention_forward(
            *each, starts, starts, width, width, dropout, False, False, scale=scaling
        )
        return output[0].flatten(1)[None], None
    tokens = [int(each.packing.lengths.sum()) for each in heads]
    runs = zip(*(each.transpose(1, 2).flatten(2).split(tokens, 1) for each in (query, key, value)), strict=True)
    outputs = [_attend(q, k, v, each, dropout, scaling) for (q, k, v), each in zip(runs, heads, strict=True)]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1), None


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: Heads, dropout: float, scaling: float) -> Tensor:
    """All (1, num_tokens, heads * size)."""
    query, key, value = (heads.pad(each) for each in (query, key, value))
    mask = None if heads.into is None else heads.packing.mask[:, None, None]
    if dropout and query.device.type == "cpu":  # where torch has no kernel with dropout either
        scores = torch.matmul(query * scaling, key.mT)
        scores = scores if mask is None else scores.masked_fill_(~mask, -math.inf)
        output = torch.matmul(drop(scores.softmax(-1), dropout), value)
    else:
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return heads.pack(output)


def _tell_output(attention: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
    """After the last layer's attention only what is read goes on."""
    read = kwargs["packing"].read if kwargs["last"] is attention else None
    attention.output.read = read  # type: ignore[union-attr,assignment]


def _keep_read(output: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    read: Any = output.read
    return None if read is None else tuple(states.index_select(1, read) for states in args)


def _read_as_sequences(encoder: nn.Module, args: tuple[Tensor, ...], output: Any) -> Any:
    """(1, num_read, features) to (num_read, 1, features): a sequence of one token each."""
    output.last_hidden_state = output.last_hidden_state.transpose(0, 1)
    return output
