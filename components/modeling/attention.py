"""Attention within each of the examples that lie end to end."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.modeling.dropout import drop
from components.modeling.packing import EXAMPLES, Packing, Take, filled


@dataclass(frozen=True)
class Heads:
    """Where each head of each token is: among (num_rows, heads) end to end, and among (batch, heads, width) places, where a
    batch may have more examples than the packing, which nobody reads.

    into: of each place, a token's head.  out: of each token's head, its place.  real: (batch * heads * width, 1) bool, which
    places are a token's.  mask: (batch, 1, 1, width) bool, what is attended to.
    """

    packing: Packing
    count: int
    into: Tensor | None = None
    out: Tensor | None = None
    real: Tensor | None = None
    mask: Tensor | None = None

    @classmethod
    def of(cls, packing: Packing, count: int) -> "Heads":
        (batch, width), device = packing.mask.shape, packing.mask.device
        if packing.places is None or packing.tokens is None:
            return cls(packing, count)
        head = torch.arange(count, device=device)
        example, position = packing.places[:, None] // width, packing.places[:, None] % width
        out = (example * count + head) * width + position
        examples = torch.arange(filled(batch, EXAMPLES, device), device=device).clamp_(max=batch - 1)
        into = packing.tokens.view(batch, 1, width)[examples] * count + head[:, None]
        real = F.pad(packing.mask, (0, 0, 0, len(examples) - batch))[:, None].expand(-1, count, width)
        return cls(packing, count, into.flatten(), out.flatten(), real.reshape(-1, 1), packing.mask[examples, None, None])

    def pad(self, packed: Tensor) -> Tensor:
        """(1, num_rows, heads * size) -> (batch, heads, width, size). On padding lies anything; it must get no gradient."""
        batch, width = self.packing.mask.shape
        if self.into is None:
            return packed.view(batch, width, self.count, -1).transpose(1, 2)
        rows = packed.view(packed.shape[1] * self.count, -1)
        padded: Tensor = Take.apply(rows, self.into, self.out, None, self.packing.filling * self.count)
        return padded.view(-1, self.count, width, padded.shape[-1])

    def pack(self, padded: Tensor) -> Tensor:
        """(batch, heads, width, size) -> (1, num_rows, heads * size)"""
        if self.out is None:
            return padded.transpose(1, 2).flatten(0, 1).flatten(1)[None]
        packed: Tensor = Take.apply(padded.flatten(0, 2), self.out, self.into, self.real, 0)
        return packed.view(1, -1, self.count * padded.shape[-1])


def takes_lengths(states: Tensor, packing: Packing, size: int) -> bool:
    """Whether there is a kernel that attends within examples that lie end to end, and is worth it. size: of a head."""
    if packing.places is None or not states.is_cuda or torch.cuda.get_device_capability(states.device) < (8, 0):
        return False  # examples of one length lie side by side as they are
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else states.dtype
    return dtype in (torch.bfloat16, torch.float16) and size % 8 == 0 and size <= 256


def attend(
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
    """Each example by itself.  query, key, value: (1, heads, num_rows, size); returns (1, num_rows, heads * size).

    heads: none where the kernel takes lengths: FlashAttention-2 (Dao, arXiv 2307.08691), torch's own, with dropout.
    """
    if not heads:
        starts, width = packing.starts, int(packing.lengths.max())
        each = (states[0].transpose(0, 1) for states in (query, key, value))
        output = torch.ops.aten._flash_attention_forward(
            *each, starts, starts, width, width, dropout, False, False, scale=scaling
        )
        return output[0].flatten(1)[None], None
    rows = [each.packing.num_rows for each in heads]
    runs = zip(*(each.transpose(1, 2).flatten(2).split(rows, 1) for each in (query, key, value)), strict=True)
    outputs = [_attend_padded(q, k, v, each, dropout, scaling) for (q, k, v), each in zip(runs, heads, strict=True)]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1), None


def _attend_padded(query: Tensor, key: Tensor, value: Tensor, heads: Heads, dropout: float, scaling: float) -> Tensor:
    """All (1, num_rows, heads * size)."""
    query, key, value = (heads.pad(each) for each in (query, key, value))
    if dropout and query.device.type == "cpu":  # where torch has no kernel with dropout either
        scores = torch.matmul(query * scaling, key.mT)
        scores = scores if heads.mask is None else scores.masked_fill_(~heads.mask, -math.inf)
        output = torch.matmul(drop(scores.softmax(-1), dropout), value)
    else:
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=heads.mask, dropout_p=dropout, scale=scaling)
    return heads.pack(output)
