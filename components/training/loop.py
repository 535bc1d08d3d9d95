"""The training loop."""

from dataclasses import dataclass

from torch import Tensor, nn

from components.errors import TryAgainError
from components.modeling.depth import dropped_parameters, left_alone
from components.training import mechanism
from components.training.budget import Budget, Progress, Spent
from components.training.checkpoint import Checkpoints
from components.training.growth import Growth, grow
from components.training.interrupts import ended_by, lost_ranks
from components.training.log import MetricsLog
from components.training.optimizers import schedule, steps_taken, trust_ratios
from components.training.run import Run
from components.training.update import Gradients

CLIP_EPSILON = 1e-6
"""That clip_grads_with_norm_ adds to the norm."""


@dataclass(frozen=True)
class Course:
    """What was settled before the first update.

    peak: learning rate.  warmup: share of the budget over which it rises.  decays: whether it then falls.  max_grad_norm: 0
    does not clip.  num_updates, num_examples: of the whole run, as far as they are known.
    """

    budget: Budget
    peak: float
    warmup: float
    max_grad_norm: float
    global_batch_size: int
    updates_per_epoch: int
    num_updates: int
    num_examples: int
    seed: int
    decays: bool = True

    def progress(self, spent: Spent) -> Progress:
        return Progress(spent.updates, self.budget.share(spent), self.seed, self.budget.step(spent))


def run_updates(
    run: Run,
    course: Course,
    gradients: Gradients,
    log: MetricsLog,
    checkpoints: Checkpoints,
    growth: Growth | None = None,
) -> BaseException | None:
    """Update after update until the budget is spent. With `growth` the network becomes deeper on the way.

    Returns:
        What ended it before: a signal's SystemExit or KeyboardInterrupt, or TryAgainError where another rank has left. It comes
        without the frames that hold DDP.
    """
    try:
        run.tokens = run.tokens or gradients.choose_tokens(course.budget, course.seed, course.global_batch_size)
        if run.done and gradients.ranks.count > 2:
            first = course.progress(run.since)
            gradients.lay_out_buckets(first, run.selection.rows(first, gradients.score))
        while course.budget.share(run.spent) < 1:
            progress = course.progress(run.spent)
            if growth:
                grow(run, growth, growth.stacking.times(progress.share))
            rows = run.selection.rows(progress, gradients.score)
            rate = course.peak * schedule(progress, course.warmup, course.decays)
            hessian = gradients.estimate_hessian(progress, rows)
            work = gradients.compute(progress, rows) + hessian
            with left_alone(dropped_parameters(run.network)):
                scalars = move_weights(run, rate, course.max_grad_norm, look=mechanism.is_due(progress))
            run.spent = run.spent.plus(work)
            epoch = round(run.done / course.updates_per_epoch, 4)
            with lost_ranks(gradients.signalled):
                signal, run.tokens = log.end_update(run.done, work, scalars, run.tokens, epoch=epoch, learning_rate=rate)
            run.optimizer.zero_grad(set_to_none=False)
            checkpoints.save_if_due(run, log)
            if signal:
                raise ended_by(signal)
    except (SystemExit, KeyboardInterrupt, TryAgainError) as error:
        return type(error)(*error.args)
    return None


def move_weights(run: Run, learning_rate: float, max_grad_norm: float, look: bool = False) -> dict[str, Tensor]:
    """Clip the gradient and take the optimizer's step. With fp16, one that overflowed is left out.

    Returns:
        Scalars for the log, on their device: the gradient's norm before it was clipped, and what the optimizer tells; with
        `look` also how far the weights went.
    """
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate
    scaler = run.arithmetic.scaler
    scaler.unscale_(run.optimizer)
    weights = [weight for weight in run.network.parameters() if weight.grad is not None]
    norm = nn.utils.get_total_norm([weight.grad for weight in weights])  # type: ignore[misc]
    # A CPU can look whether there is anything to clip; a GPU would have to wait for the answer.
    if max_grad_norm and (norm.is_cuda or not norm + CLIP_EPSILON <= max_grad_norm):
        nn.utils.clip_grads_with_norm_(weights, max_grad_norm, norm)
    ratios = mechanism.UpdateRatios(run.optimizer) if look else None
    scaler.step(run.optimizer)
    scaler.update()
    scalars = {"gradient_norm": norm, **trust_ratios(run.optimizer)}
    return scalars | ratios.after() | steps_taken(run.optimizer) if ratios else scalars
