"""A registered version becomes champion, if the gate lets it through at this very moment."""

from components import parameters
from components.errors import UserError
from components.parameters import documented
from components.registry.versions import check_uri


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

    from components.registry.champion import crown, find_version, record
    from components.registry.gate import Limits
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
