"""Stacking: a run's network gets twice the layers at given shares of its budget.

For pre-training from scratch: the first updates cost a quarter or half of what the last ones do. When it grows is a function of
the share of the budget that is spent, so that all ranks do before the same update; how often it did is in its checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from components.errors import UserError
from components.parameters import OptimizerState, check_fields

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from components.training.run import Run

ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Stacking:
    """The parameters of these names. As No Train No Gain ran it (arXiv 2307.06440), with 24 hours: grow_at 0.125 and 0.3, 4 to
    8 to 16 layers, `keep`, which is what its code does.
    """

    grow_at: list[float] = field(default_factory=list)
    grow_optimizer_state: OptimizerState = "keep"
    grow_zero_init: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if not all(0 < share < 1 for share in self.grow_at) or sorted(set(self.grow_at)) != self.grow_at:
            raise UserError(f"grow_at is {self.grow_at}: give shares of the budget that rise, above 0 and below 1")

    def times(self, share: float) -> int:
        """How often the layers are to have doubled before an update at this share of the budget."""
        return sum(share >= at - ROUNDING for at in self.grow_at)


@dataclass(frozen=True)
class Growth:
    """prepare: makes a network ready to train, as the run's first was.  build: its optimizer."""

    stacking: Stacking
    prepare: Callable[[PreTrainedModel], None]
    build: Callable[[PreTrainedModel], Optimizer]


def grow(run: Run, growth: Growth, times: int) -> None:
    """Double the run's layers until that was done `times` in all, and give its optimizer the new weights.

    On a GPU half as many tokens are computed at once afterwards: as many more are kept for the backward pass.

    Raises:
        UserError: the model's family cannot.
    """
    from components.modeling.grow import doubled

    while run.grown < times:
        network = doubled(run.network, growth.stacking.grow_zero_init)
        growth.prepare(network)
        optimizer = growth.build(network)
        if growth.stacking.grow_optimizer_state != "reset":
            _hand_on(run, network, optimizer, to_copies=growth.stacking.grow_optimizer_state == "copy")
        on_gpu = next(network.parameters()).is_cuda
        run.network, run.optimizer, run.tokens = network, optimizer, run.tokens // 2 if on_gpu else run.tokens
        run.grown, run.since = run.grown + 1, run.spent


def _hand_on(run: Run, network: PreTrainedModel, optimizer: Optimizer, to_copies: bool) -> None:
    """What the run's optimizer remembers goes to that of a network twice as deep; of new layers only `to_copies`."""
    import torch

    from components.modeling.grow import source_of

    before, num_layers = dict(run.network.named_parameters()), run.network.config.num_hidden_layers
    for name, weight in network.named_parameters():
        source = source_of(name, num_layers)
        held = run.optimizer.state.get(before[source]) if to_copies or source == name else None
        if held:
            optimizer.state[weight] = {
                key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in held.items()
            }
    for group, of_old in zip(optimizer.param_groups, run.optimizer.param_groups, strict=True):
        group |= {key: value for key, value in of_old.items() if key != "params"}
