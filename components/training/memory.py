"""How many tokens a device computes at once, and what to do when they were too many."""

import sys
from collections.abc import Callable

import torch

from components.errors import UserError

CPU_TOKENS = 1024
"""A CPU gains nothing from more. A measured number would differ from run to run, and with it dropout, and the model."""
FIRST_TOKENS = 2048
MOST_MEMORY = 0.8


def choose_tokens(device: torch.device, compute: Callable[[int], None], most: int) -> int:
    """On a CPU a fixed number; on a GPU the largest, by doubling, that `compute` finds room for, no more than `most` needs.

    Args:
        compute: computes a micro-batch of so many tokens, the longest there are, and leaves nothing behind.
    """
    if device.type == "cpu":
        return CPU_TOKENS
    total = torch.cuda.get_device_properties(device).total_memory
    return largest(compute, most, lambda: torch.cuda.max_memory_allocated(device) / total)


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
