"""What a champion must hold."""

from dataclasses import dataclass

from components import parameters
from components.errors import UserError
from components.parameters import ChampionRule, check_fields


@dataclass(frozen=True)
class Criteria:
    """The parameters of these names."""

    champion_margin: float
    champion_min_score: float
    champion_min_robustness: float
    champion_rule: ChampionRule = parameters.champion_rule
    champion_reason: str = parameters.champion_reason

    def __post_init__(self) -> None:
        check_fields(self)
        if self.champion_rule == "replace" and not self.champion_reason.strip():
            raise UserError("champion_rule is replace, without a champion_reason: say in a sentence why the champion goes")
