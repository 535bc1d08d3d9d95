"""What an evaluation takes. Apart from the stage: the first step checks it in an image that has no torch."""

from dataclasses import dataclass

from components.parameters import EvaluationPrecision, check_fields


@dataclass(frozen=True, kw_only=True)
class Evaluating:
    """The parameters of these names."""

    robustness_rows: int
    evaluation_precision: EvaluationPrecision
    predict_test: bool

    def __post_init__(self) -> None:
        check_fields(self)
