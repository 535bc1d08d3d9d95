"""metrics.jsonl, one line an update, and the progress on the terminal (or in a log, where there is no terminal)."""

import json
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
from components.train.ranks import Ranks

METRICS = "metrics.jsonl"


class MetricsLog:
    """Sums stay on the device, and on their rank, until every `interval`-th update: no update waits for its log."""

    def __init__(self, folder: Path | None, names: tuple[str, ...], ranks: Ranks, num_examples: int, interval: int) -> None:
        """folder: None on all ranks but the first.  names: of the losses.  num_examples: over all updates of the run."""
        self.names = names
        self.ranks = ranks
        self.interval = interval
        self.file = (folder / METRICS).open("w") if folder else None
        self.bar = tqdm(total=num_examples, desc="train", unit=" samples", disable=None if folder else True, smoothing=0.1)
        self.num_examples, self.done = num_examples, 0
        self.sums = torch.zeros(len(names), device=ranks.device)
        self.pending: list[tuple[dict[str, Any], Tensor, Tensor]] = []
        self.started = time.monotonic()

    def add(self, losses: tuple[Tensor, ...], weight: float) -> None:
        """One micro-batch's losses, summed over its examples; `weight` makes them parts of the global mean."""
        self.sums += torch.stack([loss.detach() for loss in losses]) * weight

    def end_update(self, update: int, num_examples: int, gradient_norm: Tensor, **line: float) -> None:
        self.done += num_examples
        line = {"update": update, **line, "examples": self.done, "seconds": round(time.monotonic() - self.started, 3)}
        self.pending.append((line, self.sums, gradient_norm.detach()))
        self.sums = torch.zeros_like(self.sums)
        self.bar.update(num_examples)
        if len(self.pending) == self.interval or self.done == self.num_examples:
            self._flush()

    def _flush(self) -> None:
        sums = torch.stack([sums for _, sums, _ in self.pending])
        if self.ranks.count > 1:
            dist.all_reduce(sums)
        norms = torch.stack([norm for _, _, norm in self.pending]).tolist()
        for (line, _, _), losses, norm in zip(self.pending, sums.tolist(), norms, strict=True):
            line |= {**dict(zip(self.names, losses, strict=True)), "gradient_norm": norm}
            if not torch.tensor([*losses, norm]).isfinite().all():
                raise UserError(f"update {line['update']}: loss {losses[0]}, gradient norm {norm}: lower the learning rate")
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

    def close(self) -> None:
        self.bar.close()
        if self.file:
            self.file.close()
