"""A registered version becomes champion, if the gate lets it through at this very moment."""

import re

from components import parameters
from components.errors import UserError
from components.parameters import documented

URI = re.compile(r"models:/([^/@]+)(?:/(\d+)|@([^/@]+))")


@documented
def promote(
    *,
    model_uri: str,
    champion_margin: float = parameters.champion_margin,
    champion_min_score: float = parameters.champion_min_score,
    champion_min_robustness: float = parameters.champion_min_robustness,
) -> str:
    """Make a registered version @champion. It is put to the gate again: by now the champion may be another.

    Returns the gate's reason.

    Raises:
        UserError: no such version, or the gate refuses it; then nothing changes but the version's tags, which say so.
    """
    check_uri(model_uri)

    import mlflow  # seconds, as are the next

    from components.register.champion import crown, find_version
    from components.register.gate import Limits
    from components.register.stage import record
    from components.tracking import reachable

    limits = Limits(champion_margin, champion_min_score, champion_min_robustness)
    client = mlflow.MlflowClient()
    with reachable():
        there = find_version(client, model_uri)
        name, version = there.name, str(there.version)
        decision = crown(client, name, version, limits)
        if decision.champion != version:
            record(client, name, version, decision)
    if not decision.promote:
        raise UserError(f"{name} version {version} {decision}")
    print(f"champion: {name} version {version} as models:/{name}@champion: {'; '.join(decision.reasons)}", flush=True)
    return "; ".join(decision.reasons)


def check_uri(model_uri: str) -> tuple[str, str | None, str | None]:
    """(name, version, alias), one of the last two; UserError where it has another form."""
    found = URI.fullmatch(model_uri)
    if not found:
        raise UserError(f"model_uri is '{model_uri}': give models:/NAME/VERSION or models:/NAME@ALIAS")
    name, version, alias = found.groups()
    return name, version, alias
