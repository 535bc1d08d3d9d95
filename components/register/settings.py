"""What a registration takes. Apart from the stage: the first step checks it in an image that has no torch."""

from dataclasses import dataclass

from components.errors import UserError
from components.parameters import check_fields
from components.registry.versions import BEST, CHAMPION


@dataclass(frozen=True, kw_only=True)
class Registering:
    """The parameters of these names."""

    name: str
    alias: str
    auto_promote: bool

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.alias or self.alias in (CHAMPION, BEST) or set(self.name) & set("/:%'\""):
            mend = f"give both, a name without / : % and quotes, an alias but {CHAMPION} and {BEST}"
            raise UserError(f"name '{self.name}', alias '{self.alias}': {mend}")
