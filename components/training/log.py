"""metrics.jsonl, one line an update, and the progress on the terminal (or in a log, where there is no terminal)."""

import contextlib
import json
import math
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from components.artifacts.names import TRAINING_CLOCK, TRAINING_LOG
from components.errors import UserError
from components.training.budget import Work
from components.training.interrupts import Signalled
from components.training.mechanism import Watch
from components.training.method import Loss
from components.training.ranks import Ranks

MOST_SKIPPED = 20  # from its first 2^16, fp16's loss scale is then below 1
GATHER_SECONDS = 2.0
"""Many ranks gather their sums no less often, or after every update: only then can they be stopped, or leave a checkpoint."""


class Agreed(NamedTuple):
    """What all ranks do from here on.

    signal: that ends the run after this update, since one of them got it; 0 for none.  tokens: that each computes at once, the
    fewest of any: what a checkpoint keeps, so that a run that goes on has the same micro-batches, and dropout.
    """

    signal: int
    tokens: int


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line, to stdout by default. Whoever read along may have gone, as when a pipeline is stopped: that ends no run."""
    with contextlib.suppress(BrokenPipeError):
        print(text, file=file, flush=True)


class MetricsLog:
    """Sums stay on the device, and on their rank, until every `interval`-th update: no update waits for its log."""

    def __init__(
        self,
        folder: Path | None,
        method: str,
        part_names: tuple[str, ...],
        ranks: Ranks,
        num_examples: int,
        interval: int,
        may_skip: bool,
        signalled: Signalled,
    ) -> None:
        """folder: None on all ranks but the first.  num_examples: over all updates of the run.  may_skip: an update whose
        gradient is not finite is left out (fp16), not an error.  signalled: tells the signal that this rank got.
        """
        self.method = method
        self.names = ("loss", *part_names)
        self.ranks = ranks
        self.interval = interval
        self.may_skip, self.num_skipped = may_skip, 0
        self.signalled = signalled
        self.watch = Watch()
        self.at_once = interval if ranks.count == 1 else 1
        self.path = folder / TRAINING_LOG if folder else None
        self.file = self.path.open("w") if self.path else None
        self.bar = tqdm(total=num_examples, desc="train", unit=" samples", disable=None if folder else True, smoothing=0.1)
        self.num_examples, self.done = num_examples, 0
        self.sums = torch.zeros(len(self.names), device=ranks.device)
        self.pending: list[tuple[dict[str, Any], Tensor, dict[str, Tensor]]] = []
        self.started = self.gathered = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def is_complete(self) -> bool:
        """Whether this rank knows the losses of all updates so far, or can without the others."""
        return self.ranks.count == 1 or not self.pending

    def go_on(self, text: str, seconds: float) -> None:
        """After the updates that metrics.jsonl, `text`, has already, which took `seconds`."""
        lines = [json.loads(line) for line in text.splitlines()]
        self.started -= seconds
        self.done = self.bar.initial = self.bar.n = lines[-1]["examples"]
        for line in lines:
            self.num_skipped = self.num_skipped + 1 if "skipped" in line else 0
            self.watch.warnings(line["update"], line)  # were given then
        if self.file:
            self.file.write(text)
            self.file.flush()

    def text(self) -> str:
        """The lines that are written; none on all ranks but the first."""
        return self.path.read_text() if self.path else ""

    def add(self, loss: Loss, weight: float) -> None:
        """A loss of a micro-batch, summed over its examples; `weight` makes it a part of the global mean."""
        sums = {"loss": loss.total, **loss.parts}
        zero = torch.zeros_like(loss.total)
        self.sums += torch.stack([sums.get(name, zero).detach() for name in self.names]) * weight

    def forget_update(self) -> None:
        """The losses since the last update: it will be computed again."""
        self.sums = torch.zeros_like(self.sums)

    def end_update(self, update: int, work: Work, scalars: dict[str, Tensor], tokens: int = 0, **line: float) -> Agreed:
        """work: what the update cost.  scalars: on the device, the gradient's norm among them; the same on all ranks.  tokens:
        that this rank computes at once.
        """
        self.done += work.examples
        line = {"update": update, **line, "examples": self.done, "seconds": round(self.seconds, 3)}
        line |= {name: value for name, value in vars(work).items() if name != "examples"}
        self.pending.append((line, self.sums, {name: scalar.detach() for name, scalar in scalars.items()}))
        self.sums = torch.zeros_like(self.sums)
        self.bar.update(work.examples)
        if len(self.pending) >= self.at_once or update % self.interval == 0 or self.done == self.num_examples:
            return self.flush(tokens)
        return Agreed(0, tokens)

    def flush(self, tokens: int = 0) -> Agreed:
        """Write the lines of the updates since the last time; all ranks at the same update."""
        if not self.pending:
            return Agreed(0, tokens)
        sums, agreed = self._gathered(torch.stack([sums for _, sums, _ in self.pending]), tokens)
        scalars = iter(torch.stack([scalar for _, _, scalars in self.pending for scalar in scalars.values()]).tolist())
        for (line, _, named), losses in zip(self.pending, sums.tolist(), strict=True):
            line |= self._checked(
                line["update"], dict(zip(self.names, losses, strict=True)), {name: next(scalars) for name in named}
            )
            if self.file:
                self.file.write(json.dumps(line) + "\n")
                for text in self.watch.warnings(line["update"], line):
                    say(f"train: {text}", sys.stderr)
        self.pending.clear()
        if self.file:
            self.file.flush()
            self.bar.set_postfix(loss=f"{line['loss']:.4f}")
            if self.bar.disable and (line["update"] % self.interval == 0 or self.done == self.num_examples):
                rate = self.done / line["seconds"]
                left = timedelta(seconds=round((self.num_examples - self.done) / rate))
                text = f"update {line['update']}: loss {line['loss']:.4f}, {rate:.0f} samples/s, {left} left"
                say(text, sys.stderr)
        return agreed

    def _gathered(self, sums: Tensor, tokens: int) -> tuple[Tensor, Agreed]:
        """The ranks' sums in one, and what they agree on.  sums: (updates, losses), this rank's.

        Added up in the ranks' order: that of an all-reduce depends on the number of updates, which here depends on the clock.
        """
        if self.ranks.count == 1:
            return sums, Agreed(self.signalled(), tokens)
        state = torch.tensor([self.signalled(), -tokens, time.monotonic() - self.gathered], device=sums.device)
        mine = torch.cat([sums.flatten(), state])
        every = [torch.empty_like(mine) for _ in range(self.ranks.count)]
        dist.all_gather(every, mine)
        self.gathered = time.monotonic()
        seconds_per_update = max(1e-6, every[0][-1].item() / len(sums))  # of the first rank, so that all choose alike
        self.at_once = max(1, int(GATHER_SECONDS / seconds_per_update))
        stacked = torch.stack(every)
        signal, most = stacked[:, -3:-1].amax(0).tolist()
        return stacked[:, :-3].sum(0).view_as(sums), Agreed(int(signal), -int(most))

    def _checked(self, update: int, losses: dict[str, float], scalars: dict[str, float]) -> dict[str, float]:
        """What the update's line says of its losses and its gradient.

        Raises:
            UserError: one of them is not finite.
        """
        norm = {"gradient_norm": scalars["gradient_norm"]}
        if bad := [f"{name} is {value}" for name, value in (losses | norm).items() if not math.isfinite(value)]:
            if not self.may_skip or bad[0].split()[0] != "gradient_norm":
                raise UserError(f"update {update} ({self.method}): {', '.join(bad)}: lower learning_rate")
            self.num_skipped += 1
            if self.num_skipped == MOST_SKIPPED:
                raise UserError(
                    f"update {update} ({self.method}): the gradient overflowed fp16 {MOST_SKIPPED} updates in a row, at every "
                    "scale of the loss: take --precision bf16 or fp32, or lower learning_rate"
                )
            return {**losses, "skipped": 1}
        self.num_skipped = 0
        return {**losses, **scalars}

    def close(self) -> None:
        """Put the seconds into a file of their own: equal runs have equal lines but for these."""
        self.bar.close()
        if self.file and self.path:
            self.file.close()
            lines = [json.loads(line) for line in self.path.read_text().splitlines()]
            clock = [{"update": line["update"], "seconds": line.pop("seconds")} for line in lines]
            self.path.with_name(TRAINING_CLOCK).write_text("".join(json.dumps(each) + "\n" for each in clock))
            self.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
