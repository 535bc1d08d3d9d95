"""Everything of a training run that changes from update to update: what a checkpoint captures and restores, whole."""

from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from components.training.budget import Spent
from components.training.precision import Arithmetic
from components.training.selection import Selection


@dataclass
class Run:
    """tokens: that a rank computes at once; 0 until it is known.  grown: how often its layers have doubled.  since: what was
    spent when this network was made.
    """

    network: PreTrainedModel
    optimizer: torch.optim.Optimizer
    arithmetic: Arithmetic
    selection: Selection
    spent: Spent = field(default_factory=Spent)
    tokens: int = 0
    grown: int = 0
    since: Spent = field(default_factory=Spent)

    @property
    def done(self) -> int:
        """Updates."""
        return self.spent.updates
