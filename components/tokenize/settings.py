"""The settings of tokenizing."""

from dataclasses import dataclass

from components.errors import UserError
from components.parameters import check_fields
from components.tasks.table import find_task

STATES = ("source_state", "model_state")
"""What components.resolve adds: it says what stood at a place, and not what is to be done."""


@dataclass(frozen=True, kw_only=True)
class Tokenizing:
    """The parameters of these names.  source_state, model_state: what was found there."""

    task: str
    source: str
    model: str
    max_length: int
    text_columns: list[str]
    label_column: str
    skip_malformed_rows: bool
    shard_rows: int
    num_sample_rows: int
    seed: int
    source_state: str = ""
    model_state: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.text_columns:
            find_task(self.task)
        elif not self.label_column:
            raise UserError("--text-columns goes with --label-column: name the column that holds the label")
        elif len(self.text_columns) > 2:
            raise UserError(f"--text-columns names {len(self.text_columns)} columns: give one, or two for sentence pairs")
