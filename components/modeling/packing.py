"""A batch's tokens end to end: where each of them lies, there and among padded examples side by side."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS, READ, EXAMPLES, WIDTH = 128, 32, 8, 8
"""oneDNN, which multiplies 16-bit matrices on CPUs, makes and keeps about half a megabyte of kernels for every shape that it
has seen, and packed micro-batches hardly repeat theirs. Rows that nobody reads fill them up to multiples of these.
"""
SHORTER, WORTH_A_RUN = 0.6, 2000
"""A run of shorter examples begins where they have so few of the tokens before, and so many places of scores are spared."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a padded batch are, among its batch * width places side by side.

    places: (num_tokens,) int64, of each token.  tokens: (batch * width,) int64, of each place; any token where there is none.
    mask: (batch, width) bool.  read: (num_read,) int64, the tokens whose outputs somebody reads: those that begin an example,
    and perhaps the first one some more times.
    starts: (batch + 1,) int32, the token that each example begins with; last, how many tokens there are.
    All on the batch's device; `places` and `tokens` are None where nothing is padded.  lengths: (batch,) int64, on the CPU.
    filling: rows behind the last token, which are copies of the first and are not read.
    """

    lengths: Tensor
    mask: Tensor
    read: Tensor
    starts: Tensor
    places: Tensor | None = None
    tokens: Tensor | None = None
    filling: int = 0

    @property
    def num_rows(self) -> int:
        """Of the packed sequence."""
        return int(self.lengths.sum()) + self.filling

    @classmethod
    def of(cls, lengths: Tensor, width: int, device: torch.device, filling: int = 0) -> "Packing":
        """lengths: (batch,) int64, on the CPU, none above `width`."""
        mask = torch.arange(width) < lengths[:, None]
        ends = lengths.cumsum(0)
        firsts = ends - lengths
        read = F.pad(firsts, (0, filled(len(firsts), READ, device) - len(firsts)))
        always = move(mask, device), move(read, device), move(F.pad(ends, (1, 0)).int(), device)
        whole = filled(len(lengths), EXAMPLES, device) == len(lengths) and not filling
        if int(lengths.min()) == width and whole:
            return cls(lengths, *always)
        tokens = (firsts[:, None] + torch.arange(width)).clamp_(max=int(ends[-1]) - 1).flatten()
        places = F.pad(mask.flatten().nonzero().squeeze(-1), (0, filling))
        return cls(lengths, *always, move(places, device), move(tokens, device), filling)

    def pack(self, padded: Tensor) -> Tensor:
        """(batch, width, features) -> (1, num_rows, features)"""
        flat = padded.flatten(0, 1)
        packed: Tensor = flat if self.places is None else Take.apply(flat, self.places, self.tokens, self.mask.view(-1, 1), 0)
        return packed[None]

    def reading(self, places: Tensor) -> "Packing":
        """With other tokens to be read than those that begin an example.  places: (batch, read) int64, of each example."""
        read = (self.starts[:-1, None] + places).flatten()
        return replace(self, read=F.pad(read, (0, filled(len(read), READ, read.device) - len(read))))

    def runs(self) -> "list[Packing]":
        """The batch as one attention, or on a CPU, where an operator more costs little, as several of like lengths."""
        device = self.mask.device
        sizes = run_sizes(self.lengths.tolist()) if device.type == "cpu" else [1]
        width = self.mask.shape[1]
        if len(sizes) == 1 and filled(width, WIDTH, device) == width:
            return [self]
        *runs, last = ((run, filled(int(run.max()), WIDTH, device)) for run in self.lengths.split(sizes))
        return [*(Packing.of(run, width, device) for run, width in runs), Packing.of(*last, device, self.filling)]


def filled(number: int, multiple: int, device: torch.device) -> int:
    """The next multiple, where oneDNN will multiply matrices with so many rows; else the number."""
    fills = device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return -(-number // multiple) * multiple if fills else number


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


class Take(torch.autograd.Function):
    """Rows by index; the gradient comes back by an index too, which is faster than adding up rows that may be the same."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, rows: Tensor, index: Tensor, back: Tensor, mask: Tensor | None, filling: int
    ) -> Tensor:
        """mask: (rows, 1) bool, of the rows that `index` names; None where the rows it leaves out have no gradient.  filling:
        rows at the end that it never names.
        """
        ctx.save_for_backward(back, mask)
        ctx.filling = filling
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        back, mask = ctx.saved_tensors
        gradient = gradient.index_select(0, back)
        gradient = gradient if mask is None else gradient.mul_(mask)
        if ctx.filling:
            gradient[-ctx.filling :].zero_()
        return gradient, None, None, None, None


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """To a GPU through pinned memory, so that it need not wait: the next batch is made while this one is computed."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
