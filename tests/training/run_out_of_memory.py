"""Under torchrun with two ranks: one of them runs out of memory after each forward pass of each method, once.

torchrun ... run_out_of_memory.py DATA_DIR OUTPUT_DIR REPETITIONS
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from run_methods import COMMON, VARIANTS
from safetensors.torch import load_file

from components.train.stage import train
from components.training import objectives, ranks
from components.training.data import read_split

SETTINGS: dict[str, Any] = {**COMMON, "num_updates": 3, "global_batch_size": 32}
real = objectives.Classification.outputs


@contextlib.contextmanager
def out_of_memory(after: int) -> Iterator[list[int]]:
    """After so many forward passes with a large micro-batch, on this rank, once. Yields the sizes of all, in tokens."""
    passes: list[int] = []

    def outputs(self: Any, network: Any, batch: Any, *more: Any, **others: Any) -> Any:
        found = real(self, network, batch, *more, **others)
        passes.append(int(batch.attention_mask.sum()))
        if len(passes) == after:
            raise torch.OutOfMemoryError("by hand")
        return found

    setattr(objectives.Classification, "outputs", outputs)  # noqa: B010
    try:
        yield passes
    finally:
        setattr(objectives.Classification, "outputs", real)  # noqa: B010


def differences(data: Path, output: Path, rank: int, repetitions: int) -> dict[str, float]:
    """Variant and pass -> the largest difference of a weight from those of a run in which nothing failed."""
    found: dict[str, float] = {}
    mine = SETTINGS["global_batch_size"] / 2
    tokens = round(1.2 * mine * float(read_split(data, "train").lengths.float().mean()))  # half of it is not enough for all
    for name, settings in VARIANTS.items():
        with out_of_memory(0) as passes:
            train(data_dir=data, output_dir=output / name, **{**SETTINGS, **settings}, micro_batch_tokens=tokens)
        per_update = len(passes) // SETTINGS["num_updates"]
        for repetition in range(repetitions):
            for after in range(1, per_update + 1):
                folder = output / f"{name}-{repetition}-{after}"
                with out_of_memory(per_update + after if rank == 1 else 0) as passes:
                    train(data_dir=data, output_dir=folder, **{**SETTINGS, **settings}, micro_batch_tokens=tokens)
                assert rank == 0 or len(passes) > per_update * SETTINGS["num_updates"] + 1, "nothing was computed again"
                if rank == 0:
                    took = json.loads((folder / "training.json").read_text())["timings"]["micro_batch_tokens"]
                    assert took == tokens // 2, "the other rank's micro-batches are not this one's"
                    one, other = load_file(output / name / "model.safetensors"), load_file(folder / "model.safetensors")
                    most = max(float((other[key] - weight).abs().max()) for key, weight in one.items())
                    found[f"{name}, pass {after}"] = max(most, found.get(f"{name}, pass {after}", 0.0))
    return found


if __name__ == "__main__":
    _, data_dir, output_dir, number = sys.argv
    with ranks.join_ranks() as joined:
        setattr(ranks, "join_ranks", lambda: contextlib.nullcontext(joined))  # noqa: B010
        result = differences(Path(data_dir), Path(output_dir), joined.rank, int(number))
        if joined.rank == 0:
            (Path(output_dir) / "differences.json").write_text(json.dumps(result, indent=1))
