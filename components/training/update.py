"""The forward and backward passes of one update, whatever the method: one all-reduce of the gradient."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from components.errors import UserError
from components.training.data import Batch
from components.training.methods import Loss, Method, Progress
from components.training.precision import Arithmetic


def accumulate_gradients(
    model: nn.Module,
    method: Method,
    batches: Iterable[Batch],
    num_batches: int,
    progress: Progress,
    weight: float,
    arithmetic: Arithmetic,
) -> Iterator[Loss]:
    """Add `weight` times the gradient of every loss of the update's micro-batches to param.grad (scaled, with fp16).

    Under DDP all ranks' gradients are averaged in the last backward pass; until then each rank adds up its own.

    Raises:
        torch.OutOfMemoryError: param.grad holds a part of the gradient; nothing was exchanged.
        UserError: out of memory in the backward pass that exchanges gradients, which cannot be repeated.

    Yields:
        Each loss, after its backward pass. Nothing is done before it is asked for.
    """
    num_losses = method.passes(progress).num_losses
    left = num_batches * num_losses
    for batch in batches:
        losses = method.losses(model, batch, progress)
        for _ in range(num_losses):
            left -= 1
            # no_sync must surround the forward: DDP decides there whether this backward all-reduces.
            with model.no_sync() if left and isinstance(model, DistributedDataParallel) else contextlib.nullcontext():
                with arithmetic.autocast():
                    loss = next(losses)
                try:
                    arithmetic.scaler.scale(loss.total * weight).backward()
                except torch.OutOfMemoryError as error:
                    if left or not isinstance(model, DistributedDataParallel):
                        raise
                    mend = f"give --micro-batch-tokens less than {batch.input_ids.numel()}"
                    raise UserError(f"out of memory while the ranks exchanged gradients: {mend} ({error})") from None
            yield loss
