"""Under torchrun or alone: train tiny models with every method and micro-batch size, and count DDP's all-reduces.

torchrun ... run_methods.py DATA_DIR OUTPUT_DIR MICRO_BATCH [...]
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from networks import save_pre_ln
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from components.train.stage import train
from components.training import ranks
from components.training.data import read_split

NOISE: dict[str, Any] = {  # the same for every method: SMART's own is too small to be seen in 16 bits
    "perturbation_init_std": 0.01,
    "perturbation_init_norm": 0.2,
    "perturbation_step_size": 0.1,
    "perturbation_radius": 0.3,
    "perturbation_norm": "l2",
    "perturbation_scope": "sequence",
    "perturbation_dropout": "independent",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain"},
    "rdrop": {"method": "rdrop"},
    "pgd": {"method": "pgd", "perturbation_steps": 2},
    "freelb": {"method": "freelb", "perturbation_steps": 2},
    "smart": {"method": "smart", "perturbation_norm": "linf", "perturbation_scope": "token"},
    "scala": {"method": "scala", "perturbation_start": 0.4},
    "scala-label": {"method": "scala", "perturbation_start": 0.0, "perturbation_direction": "label"},
    "scala-part": {"method": "scala", "perturbation_start": 0.0, "perturbation_interval": 2, "perturbation_fraction": 0.3},
    "scala-lamb": {"method": "scala", "perturbation_start": 0.0, "optimizer": "lamb", "perturbation_weight": 3.0},
    "sophia": {"method": "plain", "optimizer": "sophia", "hessian_interval": 1, "sophia_rho": 0.5},
    "muon": {"method": "plain", "optimizer": "muon"},
}
"""Not Lion, which makes whole steps of what is rounding alone, nor SOAP, whose first bases are that."""
ALL_REDUCES = {"sophia": 2}
"""An update, if not 1."""
DROPPING: dict[str, dict[str, Any]] = {
    "layerdrop": {"method": "scala", "perturbation_start": 0.4, "depth": "layerdrop", "depth_keep": 0.2},
    "pld": {"method": "freelb", "perturbation_steps": 2, "model": "pre-ln", "depth": "pld", "depth_keep": 0.2},
}
"""That leave out layers."""
NUM_UPDATES = 20
COMMON: dict[str, Any] = {
    "model": "tiny",
    "learning_rate": 1e-3,
    "num_updates": NUM_UPDATES,
    "global_batch_size": 33,  # of 200 rows: the last update of an epoch has 2, and leaves 2 of 4 ranks without any
    "dropout": 0.0,
    "precision": "fp64",
    "log_interval": 100,
    **NOISE,
}
counts = {"all_reduces": 0}


class Counted(DistributedDataParallel):
    """Counts the buckets that are reduced."""

    def __init__(self, module: torch.nn.Module, **options: Any) -> None:
        super().__init__(module, **{**options, "bucket_cap_mb": 1000})
        self.register_comm_hook(None, count)


def count(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
    counts["all_reduces"] += 1
    group: Any = None
    return allreduce_hook(group, bucket)


def run(data_dir: Path, output_dir: Path, micro_batch: int) -> dict[str, int]:
    """Variant -> all-reduces of its whole run.  micro_batch: examples, on average."""
    lengths = read_split(data_dir, "train").lengths
    tokens = 1 if micro_batch == 1 else round(micro_batch * float(lengths.float().mean()))
    reduced = {}
    for name, settings in {**VARIANTS, **DROPPING}.items():
        counts["all_reduces"] = 0
        given = {**COMMON, **settings}
        if given["model"] == "pre-ln":
            given["model"] = str(output_dir.parent / "pre-ln")
        train(data_dir=data_dir, output_dir=output_dir / name, micro_batch_tokens=tokens, **given)
        reduced[name] = counts["all_reduces"]
    return reduced


if __name__ == "__main__":
    data, output, *sizes = sys.argv[1:]
    setattr(torch.nn.parallel, "DistributedDataParallel", Counted)  # noqa: B010
    with ranks.join_ranks() as joined:  # once: a process joins one group in its life
        setattr(ranks, "join_ranks", lambda: contextlib.nullcontext(joined))  # noqa: B010
        if joined.rank == 0:
            save_pre_ln(Path(output) / "pre-ln")
        if joined.count > 1:
            dist.barrier()
        for size in sizes:
            reduced = run(Path(data), Path(output) / size, int(size))
            if joined.rank == 0:
                (Path(output) / size / "all_reduces.json").write_text(json.dumps(reduced))
