"""Reference system time: what a run takes on one known, quiet machine, whichever machine it ran on and however busy that was.

No Train No Gain (arXiv 2307.06440, section 3): the seconds of each kind of pass are measured once on the reference system; a
run's reference time is the sum over its updates of the passes that they made. Evaluation and set-up are left out.
"""

import statistics
import time

import torch
from torch import nn

from components.modeling.packed import is_packed
from components.training.budget import Progress
from components.training.data import Split, micro_batches
from components.training.method import Method
from components.training.objectives import objective_of
from components.training.optimizers import build_optimizer
from components.training.precision import Arithmetic
from components.training.selection import rows_of_update, updates_per_epoch

PASSES = ("forward", "input_backward", "backward")


def measure_passes(
    network: nn.Module,
    rows: Split,
    batch_size: int,
    micro_batch_tokens: int,
    arithmetic: Arithmetic,
    num_updates: int,
    rounds: int = 3,
) -> dict[str, float]:
    """Seconds per example of each kind of pass, over the first updates of `rows`: medians over the rounds."""
    pieces = []
    for update in range(num_updates):
        chosen = rows_of_update(update, len(rows), batch_size, 0)
        pieces += micro_batches(chosen, rows.lengths[chosen], micro_batch_tokens, 0, 1)
    embed = network.get_input_embeddings()  # type: ignore[operator]
    objective = objective_of(rows.labels.is_floating_point())
    seconds: dict[str, list[float]] = {name: [] for name in PASSES}
    for number in range(rounds + 1):
        spent = dict.fromkeys(PASSES, 0.0)
        for piece in pieces if number else pieces[:2]:  # the first round warms
            batch = rows.batch(piece, 0, arithmetic.device, is_packed(network))  # type: ignore[arg-type]
            times = [_now(arithmetic.device)]
            with arithmetic.autocast():
                embeddings = embed(batch.input_ids)
                loss = objective.losses(objective.outputs(network, batch, embeddings), batch).sum()
            times.append(_now(arithmetic.device))
            torch.autograd.grad(loss, embeddings, retain_graph=True)
            times.append(_now(arithmetic.device))
            loss.backward()
            times.append(_now(arithmetic.device))
            for name, start, end in zip(PASSES, times, times[1:], strict=False):
                spent[name] += end - start
        network.zero_grad(set_to_none=False)
        if number:
            for name, value in spent.items():
                seconds[name].append(value / sum(map(len, pieces)))
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure_step(network: nn.Module, optimizer: str, device: torch.device, rounds: int = 5) -> float:
    """Seconds of an optimizer step, with clipping."""
    built = build_optimizer(optimizer, network, 0.0, 0.0)
    seconds = []
    for _ in range(rounds + 1):
        for weight in network.parameters():
            weight.grad = torch.zeros_like(weight)
        started = _now(device)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        built.step()
        seconds.append(_now(device) - started)
    network.zero_grad(set_to_none=False)
    return statistics.median(seconds[1:])


def reference_seconds(
    method: Method, passes: dict[str, float], step: float, num_updates: int, num_rows: int, batch_size: int
) -> float:
    """A run's reference time: the passes of all its updates, times what they take for an example, and the optimizer's steps."""
    total = 0.0
    for update in range(num_updates):
        examples = len_of_update(update, num_rows, batch_size)
        made = method.passes(Progress(update, update / num_updates, 0))
        counts = (made.forwards, made.input_backwards, made.backwards)
        total += examples * sum(count * passes[name] for count, name in zip(counts, PASSES, strict=True)) + step
    return total


def len_of_update(update: int, num_rows: int, batch_size: int) -> int:
    """Examples of an update: an epoch's last has what is left."""
    position = update % updates_per_epoch(num_rows, batch_size)
    return min(batch_size, num_rows - position * batch_size)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
