"""What a champion must hold."""

from dataclasses import dataclass

from components.parameters import check_fields


@dataclass(frozen=True)
class Criteria:
    """The parameters of these names."""

    champion_margin: float
    champion_min_score: float
    champion_min_robustness: float

    def __post_init__(self) -> None:
        check_fields(self)
