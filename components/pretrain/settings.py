"""The settings of a pre-training: those of any training, and what only masked-LM and a new network have."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from components import cli, parameters
from components.artifacts.provenance import Tracking
from components.errors import UserError
from components.launch.placement import Placement
from components.parameters import check_choice, check_fields
from components.train.settings import OF_METHODS, Settled, Training, settle

RECIPE = "masked-lm"
ARCHITECTURES = ("bert", "roberta-prelayernorm")
OF_TRAINING = tuple(name for name in cli.names_of(Training) if name != "model")
"""Which is initial_model here, and none by default."""
OF_SHAPE = ("architecture", "layers", "hidden", "heads", "intermediate")
HEAD_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """The parameters of these names."""

    initial_model: str
    architecture: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    sequence_length: int
    mask_probability: float
    whole_words: bool

    def __post_init__(self) -> None:
        check_fields(self)
        if self.architecture:
            check_choice("architecture", self.architecture, ARCHITECTURES)
        if self.initial_model and (shaped := [name for name in OF_SHAPE if getattr(self, name)]):
            raise UserError(f"{shaped[0]} and initial_model are both given: a model has its own shape, give one of them")
        if (hidden := self.shape["hidden"]) % self.shape["heads"]:
            raise UserError(f"heads is {self.shape['heads']}, which does not divide hidden, {hidden}: give one that does")

    @property
    def shape(self) -> dict[str, Any]:
        """Of a network from scratch: OF_SHAPE with nothing left to rules."""
        hidden = self.hidden or 768
        return {
            "architecture": self.architecture or ARCHITECTURES[0],
            "layers": self.layers or 12,
            "hidden": hidden,
            "heads": self.heads or max(1, hidden // HEAD_SIZE),
            "intermediate": self.intermediate or 4 * hidden,
        }


def as_given(settings: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a caller says: by a settings text, or by parameters.

    Raises:
        UserError: by both; or the text is none of a pre-training.
    """
    also = (*OF_METHODS, *cli.names_of(Placement, Tracking))
    if settings and options:
        raise UserError(f"settings and {', '.join(options)} are both given: give one or the other")
    return cli.read(settings, Pretraining, OF_TRAINING, optional=also) if settings else options


def settle_pretraining(given: Mapping[str, Any], num_rows: int) -> tuple[Pretraining, Settled]:
    """What takes effect, as components.train.settings.settle says it: what is given stands, the recipe says the rest.

    Args:
        num_rows: Sequences.

    Raises:
        UserError: a value that is none, or two that do not go together.
    """
    given = {name: value for name, value in given.items() if not parameters.is_unset(name, value)}
    wanted = cli.pick(Pretraining, given)
    of_training = {name: value for name, value in given.items() if name in OF_TRAINING or name in OF_METHODS}
    settled = settle({"recipe": RECIPE, **of_training, "model": wanted.initial_model}, num_rows)
    return wanted, settled if "recipe" in given else replace(settled, why="it is pre-training's")


def check(given: Mapping[str, Any]) -> None:
    """All that can be said before the number of sequences is known. UserError as `settle_pretraining` raises it."""
    settle_pretraining(given, 0)
