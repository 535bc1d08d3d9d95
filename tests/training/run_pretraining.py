"""Under torchrun or alone: pre-train tiny models of every shape with every micro-batch size, in fp64.

torchrun ... run_pretraining.py CORPUS_DIR OUTPUT_DIR MICRO_BATCH_TOKENS [...]
"""

import contextlib
import sys
from pathlib import Path
from typing import Any

from components.pretrain.stage import pretrain
from components.training import ranks

SMALL: dict[str, Any] = {
    "layers": 2,
    "hidden": 32,
    "heads": 2,
    "intermediate": 48,
    "sequence_length": 16,
    "learning_rate": 1e-3,
    "num_updates": 12,
    "global_batch_size": 9,
    "precision": "fp64",
    "log_interval": 100,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "bert": {},
    "prelayernorm": {"architecture": "roberta-prelayernorm", "whole_words": True},
    "scala": {"method": "scala", "perturbation_start": 0.0, "perturbation_step_size": 0.1, "perturbation_radius": 0.3},
}

if __name__ == "__main__":
    corpus, output, *sizes = sys.argv[1:]
    with ranks.join_ranks() as joined:  # once: a process joins one group in its life
        setattr(ranks, "join_ranks", lambda: contextlib.nullcontext(joined))  # noqa: B010
        for size in sizes:
            for name, settings in VARIANTS.items():
                folder = Path(output) / size / name
                pretrain(corpus_dir=Path(corpus), output_dir=folder, micro_batch_tokens=int(size), **{**SMALL, **settings})
