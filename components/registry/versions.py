"""How a registered version is named: models:/NAME/VERSION or models:/NAME@ALIAS."""

import re

from components.errors import UserError

CHAMPION = "champion"
"""The alias that only the gate gives away."""
BEST = "best"
"""The alias of the best version that ever was champion: what a row of champions, each a little worse, is held against."""
URI = re.compile(r"models:/([^/@]+)(?:/(\d+)|@([^/@]+))")


def check_uri(model_uri: str) -> tuple[str, str | None, str | None]:
    """(name, version, alias), one of the last two; UserError where it has another form."""
    found = URI.fullmatch(model_uri)
    if not found:
        raise UserError(f"model_uri is '{model_uri}': give models:/NAME/VERSION or models:/NAME@ALIAS")
    name, version, alias = found.groups()
    return name, version, alias
