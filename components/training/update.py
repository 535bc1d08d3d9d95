"""The gradient of one update, whatever the method: its micro-batches on this rank, in as much memory as there is, and one
all-reduce.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import parallel
from torch.nn.parallel import DistributedDataParallel

from components.errors import UserError
from components.modeling.depth import dropped_parameters, left_alone, set_active
from components.modeling.packed import is_packed
from components.training.budget import Budget, Progress, Spent, Work
from components.training.data import Batch, Examples, micro_batches
from components.training.depth import All, Depth
from components.training.hessian import SampledLabels
from components.training.interrupts import Signalled, ended_by, lost_ranks
from components.training.log import MetricsLog
from components.training.memory import choose_tokens, costliest, held_later, within_memory
from components.training.method import Loss, Method
from components.training.objectives import Objective
from components.training.optimizers.sophia import Sophia
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
    depth: Depth = field(default_factory=All)

    @functools.cached_property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return int(self.split.lengths.max())

    def compute(self, progress: Progress, rows: Tensor) -> Work:
        """Leave the mean gradient over the global batch `rows` in param.grad, with fewer tokens at once where it takes that.

        Raises:
            UserError: one example alone is too much.
        """
        self._compute(self.method, progress, rows, self.log.add, self.forget)
        return self._work(self.method, progress, rows)

    def estimate_hessian(self, progress: Progress, rows: Tensor) -> Work:
        """Before the gradient of an update at which the optimizer, Sophia, wants it: its estimate, from the same rows.

        Returns:
            Its passes alone: that there were so many examples the update itself says.
        """
        optimizer, method = self.run.optimizer, SampledLabels()
        if not isinstance(optimizer, Sophia) or progress.update % optimizer.hessian_interval:
            return Work()
        if optimizer.estimated != progress.update:  # else a run that goes on was stopped between this and its gradient
            terms = torch.zeros((), dtype=torch.int64, device=self.ranks.device)

            def forget() -> None:
                self.forget()
                terms.zero_()

            # A rank without rows computes one with weight 0.
            self._compute(method, progress, rows, lambda loss, weight: terms.add_(loss.parts["terms"] * (weight > 0)), forget)
            if self.ranks.count > 1:
                with lost_ranks(self.signalled):
                    dist.all_reduce(terms)
            with left_alone(dropped_parameters(self.run.network)):
                optimizer.add_hessian(int(terms), progress.update)
            optimizer.zero_grad(set_to_none=False)
        return replace(self._work(method, progress, rows), examples=0, tokens=0)

    def _compute(
        self, method: Method, progress: Progress, rows: Tensor, add: Callable[[Loss, float], object], forget: Callable[[], None]
    ) -> None:
        if self.exchange and self.exchange.module.network is not self.run.network:  # it has grown, on all ranks
            self.exchange = exchanging(self.run.network)
        active = self.depth.active(progress, self._num_layers)
        if active is not None:
            set_active(self.run.network, active)
        attempt = partial(self._attempt, method, progress, rows, add)
        self.run.tokens = within_memory(self.run.tokens, self.longest, attempt, forget)

    def _work(self, method: Method, progress: Progress, rows: Tensor) -> Work:
        active = self.depth.active(progress, self._num_layers)
        layers = self._num_layers if active is None else len(active)
        return method.passes(progress).work(len(rows), int(self.split.lengths[rows].sum()), layers)

    @property
    def _num_layers(self) -> int:
        return getattr(self.run.network.config, "num_hidden_layers", 0)

    def _attempt(
        self, method: Method, progress: Progress, rows: Tensor, add: Callable[[Loss, float], object], tokens: int
    ) -> None:
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
                method,
                self.objective,
                batches,
                len(mine),
                progress,
                weight,
                self.run.arithmetic,
                self.exchange,
            ):
                add(loss, weight / ranks.count)

    def _batch(self, rows: Tensor) -> Batch:
        # In the midst of an update, before its all-reduce. Ranks on GPUs finish it: NCCL does not miss one that left.
        may_leave = self.ranks.count == 1 or self.ranks.device.type == "cpu"
        if self.signalled() and self.log.is_complete and may_leave:
            raise ended_by(self.signalled())
        return self.split.batch(rows, self.pad_id, self.ranks.device, is_packed(self.run.network), self.run.done)

    def score(self, rows: Tensor) -> Tensor:
        """Losses of the examples as they are now, by all layers, on this rank, without a gradient: (rows,) on the CPU."""
        set_active(self.run.network, None)
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


def exchanging(network: nn.Module) -> DistributedDataParallel:
    """What adds up the ranks' gradients of this network. They meet to make it."""
    # Buffers (position ids) never change: they need no broadcast.
    return parallel.DistributedDataParallel(Exchanged(network), forward_sync_buffers=False, gradient_as_bucket_view=True)


class Exchanged(nn.Module):
    """What DDP wraps: the network, whose parameters it watches, and a forward that hands on a loss.

    DDP's forward arms the reducer, whose backward pass then exchanges gradients. It must be the last thing before that pass: a
    rank that armed it in the midst of an update, ran out of memory and began again would exchange a part of its gradient.

    The reducer waits for every parameter. Those of layers that do not compute, the same ones on all ranks, come by a node of
    the graph that has no gradient for them: what is exchanged is the zero that is there.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, loss: Tensor) -> Tensor:
        dropped = dropped_parameters(self.network)  # type: ignore[arg-type]
        exchanged: Tensor = _WithUnused.apply(loss, *dropped) if dropped else loss
        return exchanged


class _WithUnused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, *unused: Tensor) -> Tensor:  # type: ignore[override]
        ctx.count = len(unused)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return gradient, *(None,) * ctx.count


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
