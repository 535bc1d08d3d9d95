"""The arms of benchmarks/adaptation.py, and what they are run on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.train.settings import Settled, settle
from components.training.selection import updates_per_epoch

BASE_BATCH_SIZE = 32
FIRST_RATES = {"adamw": 1e-4, "lamb": 4e-4}
"""Where the search for a learning rate begins: at batch 32, scaled by the square root of the batch."""


@dataclass(frozen=True)
class Arm:
    """A recipe of components.recipes, of which learning rate, batch and length are the protocol's.  like: the arm whose
    learning rate a control takes.  length: its updates, in multiples of the protocol's.
    """

    label: str
    recipe: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    small_batch: bool = False
    like: str = ""
    length: float = 1.0

    @property
    def settings(self) -> dict[str, Any]:
        """As components.train takes them."""
        return {"recipe": self.recipe, **self.overrides}

    @property
    def settled(self) -> Settled:
        return settle(self.settings, 0)

    @property
    def optimizer(self) -> str:
        return self.settled.training.optimizer


def control(label: str, recipe: str = "scala-lamb", **noise: Any) -> Arm:
    """Of ScaLA with LAMB."""
    named = {f"perturbation_{name}": value for name, value in noise.items()}
    return Arm(label, recipe, {"optimizer": "lamb", **named}, like="scala-lamb")


AS_SCALA: dict[str, Any] = {"init_std": 0.001, "step_size": 0.1, "radius": 0.3, "norm": "l2", "scope": "sequence"}
"""The noise of ScaLA, for SMART, whose own is far smaller."""

ARMS = {
    "adamw-small": Arm("AdamW, small batch", "plain", small_batch=True),
    "adamw": Arm("AdamW", "large-batch"),
    "lamb": Arm("LAMB", "lamb"),
    "scala-adamw": Arm("ScaLA, AdamW", "scala"),
    "scala-lamb": Arm("ScaLA, LAMB", "scala-lamb"),
    "adamw-scala-time": Arm("  AdamW, as long as ScaLA takes", "large-batch", like="adamw", length=11 / 6),
    "adamw-no-delay-time": Arm("  AdamW, as long as no delay takes", "large-batch", like="adamw", length=8 / 3),
    "no-delay": control("  no delay", "scala-every-update"),
    "no-delay-adamw": Arm("  no delay, AdamW", "scala-every-update", like="scala-adamw"),
    "two-steps": control("  K = 2", steps=2),
    "three-steps": control("  K = 3", steps=3),
    "random": control("  random noise only", step_size=0.0),
    "dropout": control("  no noise, dropout drawn anew", radius=0.0),
    "shared": control("  noise, dropout shared", dropout="shared"),
    "label": control("  label loss in place of divergence", divergence="label"),
    "free": control("  direction from the clean backward", direction="label"),
    "every-other": control("  noise at every other update", interval=2),
    "half-batch": control("  noise on half of the batch", fraction=0.5),
    "rdrop": control("R-Drop, LAMB", "rdrop"),
    "pgd": control("PGD-1, LAMB", "pgd", steps=1),
    "freelb": control("FreeLB m = 2, LAMB", "freelb", steps=2, init_norm=0.2, dropout="independent"),
    "smart": control("SMART, LAMB", "smart", **AS_SCALA),
}


@dataclass(frozen=True)
class Protocol:
    """The rows and batches of a task.  num_scored: other training rows, to score on; 0 scores on the validation split."""

    num_rows: int
    num_scored: int
    num_epochs: int
    small_batch: int
    large_batch: int

    def batch_size(self, arm: Arm) -> int:
        return self.small_batch if arm.small_batch else self.large_batch

    def num_updates(self, arm: Arm) -> int:
        return round(arm.length * self.num_epochs * updates_per_epoch(self.num_rows, self.batch_size(arm)))


PROTOCOLS = {
    "sst2": Protocol(20_000, 20_000, 3, 32, 1024),  # the 872 validation rows cannot tell 1 point; 20,000 tell 0.2
    "rte": Protocol(2_490, 0, 3, 32, 256),
}
QUICK = {"sst2": Protocol(256, 300, 1, 16, 64), "rte": Protocol(128, 100, 1, 16, 64)}
