"""A registered version becomes champion, if the gate lets it through at this very moment."""

from typing import Any

from components import cli, parameters
from components.artifacts.provenance import Tracking
from components.errors import UserError
from components.registry.criteria import Criteria
from components.registry.versions import check_uri
from components.tracking.server import use_server


@cli.taking(Criteria)
def promote(*, model_uri: str, settings: str = parameters.settings, **given: Any) -> str:
    """Make a registered version @champion. It is put to the gate again: by now the champion may be another.

    Returns the gate's reason.

    Raises:
        UserError: no such version, or the gate refuses it; then nothing changes but the version's tags, which say so.
    """
    check_uri(model_uri)
    values = cli.given(settings, given, Criteria, optional=cli.names_of(Tracking))
    criteria = cli.pick(Criteria, values)

    use_server(values.get("tracking_uri", ""))

    import mlflow  # seconds, as are the next

    from components.registry.champion import crown, record
    from components.registry.fetching import find_version
    from components.tracking.runs import reachable

    client = mlflow.MlflowClient()
    with reachable():
        there = find_version(client, model_uri)
        name, version = there.name, str(there.version)
        decision = crown(client, name, version, criteria)
        if decision.champion != version:
            record(client, name, version, decision)
    if not decision.promote:
        raise UserError(f"{name} version {version} {decision}")
    print(f"champion: {name} version {version} as models:/{name}@champion: {'; '.join(decision.reasons)}", flush=True)
    return "; ".join(decision.reasons)
