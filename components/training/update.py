"""The gradient of one update, whatever the method: its micro-batches on this rank, in as much memory as there is, and one
all-reduce.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from components.errors import UserError
from components.modeling.packed import is_packed
from components.training.budget import Budget, Progress, Spent, Work
from components.training.data import Batch, Examples, micro_batches
from components.training.interrupts import Signalled, ended_by, lost_ranks
from components.training.log import MetricsLog
from components.training.memory import choose_tokens, costliest, held_later, within_memory
from components.training.method import Loss, Method
from components.training.objectives import Objective
from components.training.precision import Arithmetic
from components.training.randomness import DROPOUT, generator_seed
from components.training.ranks import Ranks
from components.training.run import Run


@dataclass
class Gradients:
    """Computes the gradient of a run's updates.

    exchange: what adds up the ranks' gradients; None where there is one rank.  signalled: tells the signal that this rank got.
    """

    run: Run
    exchange: DistributedDataParallel | None
    method: Method
    objective: Objective
    split: Examples
    pad_id: int
    ranks: Ranks
    log: MetricsLog
    signalled: Signalled

    @functools.cached_property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return int(self.split.lengths.max())

    def compute(self, progress: Progress, rows: Tensor) -> Work:
        """Leave the mean gradient over the global batch `rows` in param.grad, with fewer tokens at once where it takes that.

        Raises:
            UserError: one example alone is too much.
        """
        attempt = partial(self._attempt, progress, rows)
        self.run.tokens = within_memory(self.run.tokens, self.longest, attempt, self.forget)
        layers = getattr(self.run.network.config, "num_hidden_layers", 0)
        return self.method.passes(progress).work(len(rows), int(self.split.lengths[rows].sum()), layers)

    def _attempt(self, progress: Progress, rows: Tensor, tokens: int) -> None:
        ranks, lengths = self.ranks, self.split.lengths[rows]
        mine = micro_batches(rows, lengths, tokens, ranks.rank, ranks.count)
        # DDP averages over the ranks; the loss is the mean over the global batch, however its rows are shared out.
        weight = ranks.count / len(rows) if mine else 0.0
        mine = mine or [rows[:1]]  # a rank without rows still takes part in the all-reduce
        # The same dropout whenever this update is computed.
        torch.manual_seed(generator_seed(progress.seed, DROPOUT, progress.update, ranks.rank))
        batches = map(self._batch, mine)
        with lost_ranks(self.signalled):
            for loss in accumulate_gradients(
                self.run.network,
                self.method,
                self.objective,
                batches,
                len(mine),
                progress,
                weight,
                self.run.arithmetic,
                self.exchange,
            ):
                self.log.add(loss, weight / ranks.count)

    def _batch(self, rows: Tensor) -> Batch:
        # In the midst of an update, before its all-reduce. Ranks on GPUs finish it: NCCL does not miss one that left.
        may_leave = self.ranks.count == 1 or self.ranks.device.type == "cpu"
        if self.signalled() and self.log.is_complete and may_leave:
            raise ended_by(self.signalled())
        return self.split.batch(rows, self.pad_id, self.ranks.device, is_packed(self.run.network), self.run.done)

    def score(self, rows: Tensor) -> Tensor:
        """Losses of the examples as they are now, on this rank, without a gradient: (rows,) on the CPU."""
        losses = torch.empty(len(rows))
        with torch.no_grad(), self.run.arithmetic.autocast():
            for piece in micro_batches(torch.arange(len(rows)), self.split.lengths[rows], self.run.tokens, 0, 1):
                batch = self._batch(rows[piece])
                losses[piece] = self.objective.losses(self.objective.outputs(self.run.network, batch), batch).float().cpu()
        return losses

    def choose_tokens(self, budget: Budget, seed: int, global_batch_size: int) -> int:
        """How many tokens each rank computes at once: what fits on every one of them, at the costliest update of the run."""
        rows = max(1, global_batch_size // self.ranks.count)
        compute = partial(self._compute_costliest, budget, seed, rows)
        later = held_later(self.run.network, self.run.optimizer)
        return self.ranks.least(choose_tokens(self.ranks.device, compute, rows * self.longest, later))

    def _compute_costliest(self, budget: Budget, seed: int, rows: int, tokens: int) -> None:
        spents = (Spent(update) for update in range(round(1 / budget.step(Spent()))))
        every = (Progress(spent.updates, budget.share(spent), seed) for spent in spents)
        progress = max(every, key=lambda progress: self.method.passes(progress).relative)
        for piece in costliest(self.split.lengths, rows, tokens):
            batches, arithmetic = [self._batch(piece)], self.run.arithmetic
            for _ in accumulate_gradients(self.run.network, self.method, self.objective, batches, 1, progress, 0.0, arithmetic):
                pass
        self.forget()

    def lay_out_buckets(self, progress: Progress, rows: Tensor) -> None:
        """As an update does it: DDP orders its buckets after the first gradient it sees, and a sum's order depends on where it
        lies. So a run that goes on adds up as one that was never stopped.
        """
        self.compute(progress, rows)
        self.forget()

    def forget(self) -> None:
        """Gradient and losses since the last update: it will be computed again."""
        self.run.optimizer.zero_grad(set_to_none=False)  # fresh memory costs more than zeros
        self.log.forget_update()

    def leave_ddp(self) -> None:
        """Before the process group goes: what of DDP were left would hold the GIL while it waits for gloo's threads, one of
        which may be waiting for the GIL.
        """
        self.exchange = None


class Exchanged(nn.Module):
    """What DDP wraps: the network, whose parameters it watches, and a forward that hands on a loss.

    DDP's forward arms the reducer, whose backward pass then exchanges gradients. It must be the last thing before that pass: a
    rank that armed it in the midst of an update, ran out of memory and began again would exchange a part of its gradient.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, loss: Tensor) -> Tensor:
        return loss


def accumulate_gradients(
    network: nn.Module,
    method: Method,
    objective: Objective,
    batches: Iterable[Batch],
    num_batches: int,
    progress: Progress,
    weight: float,
    arithmetic: Arithmetic,
    exchange: DistributedDataParallel | None = None,
) -> Iterator[Loss]:
    """Add `weight` times the gradient of every loss of the update's micro-batches to param.grad (scaled, with fp16).

    With `exchange`, DDP around `Exchanged`, the gradients of all ranks are averaged in the last backward pass; until then each
    rank adds up its own.

    Raises:
        torch.OutOfMemoryError: param.grad holds a part of the gradient; nothing was exchanged.
        UserError: out of memory in the backward pass that exchanges gradients, which cannot be repeated.

    Yields:
        Each loss, after its backward pass. Nothing is done before it is asked for.
    """
    num_losses = method.passes(progress).num_losses
    left = num_batches * num_losses
    with arithmetic.cast_once():
        for batch in batches:
            losses = method.losses(objective, network, batch, progress)
            for _ in range(num_losses):
                left -= 1
                with arithmetic.autocast():
                    loss = next(losses)
                total = arithmetic.scaler.scale(loss.total * weight)
                if left or exchange is None:
                    total.backward()
                else:
                    try:
                        exchange(total).backward()
                    except torch.OutOfMemoryError as error:
                        mend = f"give --micro-batch-tokens less than {batch.input_ids.numel()}"
                        raise UserError(f"out of memory while the ranks exchanged gradients: {mend} ({error})") from None
                yield loss
