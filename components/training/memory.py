"""How many tokens a device computes at once, and what to do when they were too many."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from components.errors import UserError
from components.training.data import micro_batches

CPU_TOKENS = 1024
"""A CPU gains nothing from more. A measured number would differ from run to run, and with it dropout, and the model."""
FIRST_TOKENS = 2048
MOST_TOKENS = 65_536
"""Nothing is gained beyond, and a batch that is one micro-batch cannot be halved for a rank that runs out of memory."""
MOST_MEMORY = 0.8


def choose_tokens(device: torch.device, compute: Callable[[int], None], most: int, still_to_come: int = 0) -> int:
    """On a CPU a fixed number; on a GPU the largest, by doubling, that `compute` finds room for, no more than `most` needs.

    Args:
        compute: computes the costliest micro-batches of so many tokens, and leaves nothing behind.
        still_to_come: bytes that the training will hold and does not hold yet: they are occupied meanwhile.
    """
    if device.type == "cpu":
        return CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)  # what other processes hold is not ours
    room = free + torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    with occupied(device, still_to_come):
        return largest(compute, min(most, MOST_TOKENS), lambda: torch.cuda.max_memory_allocated(device) / room)


@contextlib.contextmanager
def occupied(device: torch.device, size: int) -> Iterator[None]:
    """Within the block `size` bytes of the device are taken; after it the allocator keeps none for itself.

    Raises:
        UserError: there are not as many.
    """
    held: list[Tensor] = []
    try:
        held.append(torch.empty(size, dtype=torch.uint8, device=device))
    except torch.OutOfMemoryError as error:
        mend = "take a smaller model or a GPU with more memory"
        raise UserError(f"the optimizer's state and gradients take {size / 2**30:.1f} GiB more: {mend} ({error})") from None
    try:
        yield
    finally:
        held.clear()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def costliest(lengths: Tensor, rows: int, tokens: int) -> list[Tensor]:
    """Of an update's micro-batches those that may need the most memory.

    An update whose lengths are those of all examples, the longest among them, is cut as any update is. What its micro-batches
    have besides `tokens` is padding, in the embeddings (places) and in the attention (places times width).

    Args:
        lengths: (examples,) tokens of each.  rows: of an update, on one rank.

    Returns:
        Row numbers of one or two micro-batches.
    """
    by_length = lengths.argsort(descending=True, stable=True)
    spread = by_length[torch.linspace(0, len(lengths) - 1, min(rows, len(lengths))).long()]
    pieces = micro_batches(spread, lengths[spread], tokens, 0, 1)
    widths = [int(lengths[piece].max()) for piece in pieces]
    places = [len(piece) * width for piece, width in zip(pieces, widths, strict=True)]
    scores = [number * width for number, width in zip(places, widths, strict=True)]
    return [pieces[number] for number in sorted({places.index(max(places)), scores.index(max(scores))})]


def held_later(network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes that an update holds and that are not there before the first one: the optimizer's state, and once more as much as
    the gradient, which is copied on its way into DDP's buckets.
    """
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    states = sum(_state_size(weight, group, optimizer) for group in optimizer.param_groups for weight in group["params"])
    return states + sum(weight.nbytes for weight in weights)


def _state_size(weight: nn.Parameter, group: dict[str, Any], optimizer: torch.optim.Optimizer) -> int:
    """Of what is not there yet: two moments, as AdamW and LAMB keep them, unless the optimizer says what it is."""
    if weight in optimizer.state or not weight.requires_grad:
        return 0
    new_state = getattr(optimizer, "new_state", None)
    return sum(it.nbytes for it in new_state(weight.to("meta"), group).values()) if new_state else 2 * weight.nbytes


def largest(compute: Callable[[int], None], most: int, peak: Callable[[], float]) -> int:
    """Double from FIRST_TOKENS on.  peak: share of the memory that was ever in use up to now."""
    tokens = FIRST_TOKENS
    while tokens < most:
        try:
            compute(2 * tokens)
        except torch.OutOfMemoryError:
            break
        if peak() > MOST_MEMORY:
            break
        tokens *= 2
    return tokens


def within_memory(tokens: int, longest: int, compute: Callable[[int], None], forget: Callable[[], None]) -> int:
    """Run compute(tokens), again with half as many after each time that it runs out of memory.

    Args:
        longest: tokens of the longest example, the least that can be tried.
        forget: undoes what compute did before it ran out.

    Returns:
        The tokens that were not too many.

    Raises:
        UserError: one example alone is too much.
    """
    while True:
        try:
            compute(tokens)
            return tokens
        except torch.OutOfMemoryError as error:  # its traceback keeps tensors alive: go on outside
            reason = str(error).splitlines()[0][:120]
        if tokens <= longest:
            mend = "tokenize with a smaller --max-length or take a smaller model"
            raise UserError(f"out of memory with {longest} tokens at a time, which is one example: {mend} ({reason})")
        forget()
        torch.cuda.empty_cache()
        print(f"out of memory with {tokens} tokens at a time: going on with {tokens // 2}", file=sys.stderr, flush=True)
        tokens = max(tokens // 2, longest)
