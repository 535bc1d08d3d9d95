"""Everything of a training run that changes from update to update: what a checkpoint captures and restores, whole."""

from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from components.training.budget import Spent
from components.training.precision import Arithmetic
from components.training.selection import Selection


@dataclass
class Run:
    """tokens: that a rank computes at once; 0 until it is known.  updates_per_epoch: what an epoch is, for the log."""

    network: PreTrainedModel
    optimizer: torch.optim.Optimizer
    arithmetic: Arithmetic
    selection: Selection
    spent: Spent = field(default_factory=Spent)
    tokens: int = 0

    @property
    def done(self) -> int:
        """Updates."""
        return self.spent.updates
