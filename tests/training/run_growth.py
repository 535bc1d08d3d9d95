"""Under torchrun or alone: train a tiny PreLN network from scratch that doubles its layers twice on the way.

torchrun ... run_growth.py OUTPUT_DIR
"""

import sys
from pathlib import Path
from typing import Any

import torch
from networks import model
from safetensors.torch import save_file

from components.modeling.abilities import PRE_LN
from components.modeling.prepare import prepare_model
from components.training.budget import Updates
from components.training.checkpoint import Checkpoints
from components.training.data import Split
from components.training.depth import build_depth
from components.training.growth import Growth, Stacking
from components.training.log import MetricsLog
from components.training.loop import Course, run_updates
from components.training.methods import build_method
from components.training.objectives import Classification
from components.training.optimizers import build_optimizer
from components.training.precision import Arithmetic
from components.training.ranks import Ranks, join_ranks
from components.training.run import Run
from components.training.selection import Shuffled
from components.training.update import Gradients, exchanging

NUM_UPDATES, NUM_ROWS, BATCH_SIZE = 8, 40, 9
AT = [0.25, 0.625]
VARIANTS: dict[str, dict[str, Any]] = {
    "keep": {},
    "copy-lamb": {"state": "copy", "optimizer": "lamb"},
    "reset-zero": {"state": "reset", "zero_init": True},
    "pld": {"state": "copy", "depth": "pld", "method": "freelb"},
}


def split() -> Split:
    drawn = torch.Generator().manual_seed(2)
    lengths = torch.randint(2, 12, (NUM_ROWS,), generator=drawn)
    tokens = torch.randint(2, 50, (int(lengths.sum()),), generator=drawn).int()
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    return Split({"input_ids": tokens}, offsets, torch.randint(0, 3, (NUM_ROWS,), generator=drawn))


def train(
    folder: Path,
    ranks: Ranks,
    num_updates: int = NUM_UPDATES,
    state: Any = "keep",
    zero_init: bool = False,
    optimizer: str = "adamw",
    depth: str = "all",
    method: str = "plain",
    at: list[float] = AT,
) -> Run:
    """The run after `num_updates`; what of it is in `folder` is not computed again, and what ended it is left there."""

    def prepare(network: Any) -> None:
        prepare_model(network, ranks.device, depth)

    def build(network: Any) -> torch.optim.Optimizer:
        return build_optimizer(optimizer, network, 1e-3, 0.1)

    rows, the_method = split(), build_method(method, {})
    network = model(PRE_LN[0], num_hidden_layers=1)
    prepare(network)
    run = Run(network, build(network), Arithmetic("fp64", ranks.device), Shuffled(NUM_ROWS, BATCH_SIZE), tokens=40)
    exchange = exchanging(network) if ranks.count > 1 else None
    growth = Growth(Stacking(grow_at=at, grow_optimizer_state=state, grow_zero_init=zero_init), prepare, build)
    checkpoints = Checkpoints(folder / "checkpoints" if ranks.rank == 0 else None, "growth", ranks, 1000.0)
    resumed = checkpoints.resume(run, growth)
    course = Course(Stopping(NUM_UPDATES, num_updates), 1e-2, 0.1, 1.0, BATCH_SIZE, 5, NUM_UPDATES, 999, seed=4)
    folder.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(folder if ranks.rank == 0 else None, method, the_method.part_names, ranks, 999, 1, False, lambda: 0)
    if resumed:
        log.go_on(resumed.metrics, resumed.numbers["seconds"])
    gradients = Gradients(
        run, exchange, the_method, Classification(), rows, 1, ranks, log, lambda: 0, build_depth(depth, 0.3, 100.0)
    )
    del exchange
    assert run_updates(run, course, gradients, log, checkpoints, growth) is None
    gradients.leave_ddp()
    checkpoints.save(run, log)
    log.flush()
    return run


class Stopping(Updates):
    """As long as `count` updates, and over after fewer."""

    def __init__(self, count: int, last: int) -> None:
        super().__init__(count)
        object.__setattr__(self, "last", last)

    def share(self, spent: Any) -> float:
        return 1.0 if spent.updates >= self.last else super().share(spent)  # type: ignore[attr-defined]


def train_all(folder: Path, ranks: Ranks) -> None:
    """Every variant; its weights go to NAME.st."""
    for name, given in VARIANTS.items():
        run = train(folder / name, ranks, **given)
        if ranks.rank == 0:
            weights = {key: weight.detach() for key, weight in run.network.named_parameters()}
            save_file(weights, folder / f"{name}.st")


if __name__ == "__main__":
    with join_ranks() as joined:
        train_all(Path(sys.argv[1]), joined)
