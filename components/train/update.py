"""The forward and backward passes of one update, whatever the method: one all-reduce of the gradient."""

import contextlib
from collections.abc import Iterable, Iterator

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from components.train.data import Batch
from components.train.methods import Loss, Method, Progress
from components.train.precision import Arithmetic


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
                arithmetic.scaler.scale(loss.total * weight).backward()
            yield loss
