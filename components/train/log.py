"""metrics.jsonl, one line an update, and the progress on the terminal (or in a log, where there is no terminal)."""

import json
import math
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from components.errors import UserError
from components.train.methods import Loss
from components.train.ranks import Ranks

METRICS = "metrics.jsonl"
MOST_SKIPPED = 20  # from its first 2^16, fp16's loss scale is then below 1


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
    ) -> None:
        """folder: None on all ranks but the first.  num_examples: over all updates of the run.  may_skip: an update whose
        gradient is not finite is left out (fp16), not an error.
        """
        self.method = method
        self.names = ("loss", *part_names)
        self.ranks = ranks
        self.interval = interval
        self.may_skip, self.num_skipped = may_skip, 0
        self.file = (folder / METRICS).open("w") if folder else None
        self.bar = tqdm(total=num_examples, desc="train", unit=" samples", disable=None if folder else True, smoothing=0.1)
        self.num_examples, self.done = num_examples, 0
        self.sums = torch.zeros(len(self.names), device=ranks.device)
        self.pending: list[tuple[dict[str, Any], Tensor, dict[str, Tensor]]] = []
        self.started = time.monotonic()

    def add(self, loss: Loss, weight: float) -> None:
        """A loss of a micro-batch, summed over its examples; `weight` makes it a part of the global mean."""
        sums = {"loss": loss.total, **loss.parts}
        zero = torch.zeros_like(loss.total)
        self.sums += torch.stack([sums.get(name, zero).detach() for name in self.names]) * weight

    def forget_update(self) -> None:
        """The losses since the last update: it will be computed again."""
        self.sums = torch.zeros_like(self.sums)

    def end_update(self, update: int, num_examples: int, scalars: dict[str, Tensor], **line: float) -> None:
        """scalars: on the device, the gradient's norm among them; the same on all ranks."""
        self.done += num_examples
        line = {"update": update, **line, "examples": self.done, "seconds": round(time.monotonic() - self.started, 3)}
        self.pending.append((line, self.sums, {name: scalar.detach() for name, scalar in scalars.items()}))
        self.sums = torch.zeros_like(self.sums)
        self.bar.update(num_examples)
        if len(self.pending) == self.interval or self.done == self.num_examples:
            self._flush()

    def _flush(self) -> None:
        sums = torch.stack([sums for _, sums, _ in self.pending])
        if self.ranks.count > 1:
            dist.all_reduce(sums)
        scalars = iter(torch.stack([scalar for _, _, scalars in self.pending for scalar in scalars.values()]).tolist())
        for (line, _, named), losses in zip(self.pending, sums.tolist(), strict=True):
            line |= self._checked(
                line["update"], dict(zip(self.names, losses, strict=True)), {name: next(scalars) for name in named}
            )
            if self.file:
                self.file.write(json.dumps(line) + "\n")
        self.pending.clear()
        if self.file:
            self.file.flush()
            self.bar.set_postfix(loss=f"{line['loss']:.4f}")
            if self.bar.disable:
                rate = self.done / line["seconds"]
                left = timedelta(seconds=round((self.num_examples - self.done) / rate))
                text = f"update {line['update']}: loss {line['loss']:.4f}, {rate:.0f} samples/s, {left} left"
                print(text, file=sys.stderr, flush=True)

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
        self.bar.close()
        if self.file:
            self.file.close()
