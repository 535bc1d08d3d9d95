"""Under torchrun or alone: the loss curve of every method, with dropout, by a fixed seed.

torchrun ... run_recorded.py DATA_DIR OUTPUT_DIR
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from components.train.stage import train
from components.training import ranks

NOISE: dict[str, Any] = {
    "perturbation_init_std": 0.01,
    "perturbation_step_size": 0.1,
    "perturbation_radius": 0.3,
    "perturbation_norm": "l2",
    "perturbation_scope": "sequence",
    "perturbation_dropout": "independent",
}
DIVERGENCE: dict[str, Any] = {**NOISE, "perturbation_divergence": "symmetric_kl", "perturbation_weight": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain"},
    "rdrop": {"method": "rdrop", "perturbation_weight": 1.0},
    "pgd": {"method": "pgd", **NOISE, "perturbation_steps": 2},
    "freelb": {"method": "freelb", **NOISE, "perturbation_steps": 2, "perturbation_init_norm": 0.2},
    "smart": {
        "method": "smart",
        **DIVERGENCE,
        "perturbation_steps": 1,
        "perturbation_norm": "linf",
        "perturbation_scope": "token",
        "perturbation_divergence": "js",
    },
    "scala": {"method": "scala", **DIVERGENCE, "perturbation_start": 0.4, "perturbation_steps": 1},
    "scala-shared": {
        "method": "scala",
        **DIVERGENCE,
        "perturbation_start": 0.0,
        "perturbation_steps": 2,
        "perturbation_dropout": "shared",
        "perturbation_divergence": "kl",
    },
    "scala-label": {
        "method": "scala",
        **DIVERGENCE,
        "perturbation_start": 0.0,
        "perturbation_steps": 1,
        "perturbation_direction": "label",
        "perturbation_divergence": "mse",
    },
    "scala-part": {
        "method": "scala",
        **DIVERGENCE,
        "perturbation_start": 0.0,
        "perturbation_steps": 1,
        "perturbation_interval": 2,
        "perturbation_fraction": 0.3,
    },
    "scala-lamb": {
        "method": "scala",
        **DIVERGENCE,
        "perturbation_start": 0.0,
        "perturbation_steps": 1,
        "optimizer": "lamb",
        "perturbation_weight": 3.0,
    },
}
COMMON: dict[str, Any] = {
    "model": "tiny",
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "base_batch_size": 16,
    "num_updates": 10,
    "global_batch_size": 33,  # of 200 rows: an epoch of seven updates, the last of 2 rows
    "micro_batch_tokens": 200,
    "dropout": 0.1,
    "precision": "fp64",
    "seed": 3,
    "log_interval": 100,
    "checkpoint_minutes": 0.0,
}


def curves(data_dir: Path, output_dir: Path) -> dict[str, list[float]]:
    """Variant -> the loss of each update."""
    losses = {}
    for name, settings in VARIANTS.items():
        train(data_dir=data_dir, output_dir=output_dir / name, **{**COMMON, **settings})
        if (output_dir / name / "metrics.jsonl").is_file():  # on the first rank
            lines = (output_dir / name / "metrics.jsonl").read_text().splitlines()
            losses[name] = [json.loads(line)["loss"] for line in lines]
    return losses


if __name__ == "__main__":
    data, output = map(Path, sys.argv[1:])
    with ranks.join_ranks() as joined:  # once: a process joins one group in its life
        setattr(ranks, "join_ranks", lambda: contextlib.nullcontext(joined))  # noqa: B010
        found = curves(data, output)
        if joined.rank == 0:
            (output / "curves.json").write_text(json.dumps(found, indent=1) + "\n")
