"""The settings of making a corpus."""

from dataclasses import dataclass

from components.errors import UserError
from components.parameters import check_fields


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The parameters of these names.  source_state, model_state: what was found there, model_state of initial_model."""

    source: str
    text_column: str
    initial_model: str
    vocabulary: str
    vocabulary_size: int
    lowercase: bool
    source_state: str = ""
    model_state: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.source in ("hub", "sample"):
            raise UserError(
                f"source is {self.source!r}, which is no text to pre-train on: give a file, a folder or hub:OWNER/NAME"
            )
        if self.initial_model and self.vocabulary:
            raise UserError(
                "vocabulary and initial_model are both given: a model has a vocabulary of its own, give one of them"
            )
