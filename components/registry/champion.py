"""The registry's side of the gate: who is champion, on what it was measured, and giving the place to another."""

import json
import tempfile
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from components.errors import UserError
from components.registry.criteria import Criteria
from components.registry.facing import Faced, face
from components.registry.fetching import fetch_evaluation
from components.registry.gate import Decision, decide
from components.registry.versions import BEST, CHAMPION

ATTEMPTS = 20
MAX_TAG = 5000  # characters


def aliased(client: mlflow.MlflowClient, name: str, alias: str) -> str:
    """The version that has the alias; '' where there is none."""
    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        # Servers differ in what they call an alias that is not there.
        if error.error_code in (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), "INVALID_PARAMETER_VALUE"):
            return ""
        raise


def judge(client: mlflow.MlflowClient, name: str, version: str, criteria: Criteria) -> Decision:
    """The gate's decision on a version, against the champion of now and the best that ever was, by what the registry holds."""
    champion = aliased(client, name, CHAMPION)
    best = aliased(client, name, BEST) or champion  # a registry of before has no best
    if champion == version:
        return Decision(True, ["it is the champion"], criteria, champion, best=best)
    with tempfile.TemporaryDirectory() as folder:
        challenger = fetch_evaluation(client, name, version, Path(folder) / "challenger")
        rivals: dict[str, Faced | str] = {}
        for rival in {champion, best} - {"", version}:
            try:
                evaluation = fetch_evaluation(client, name, rival, Path(folder) / rival)
                rivals[rival] = face(client, name, challenger, version, evaluation, rival)
            except UserError as error:
                rivals[rival] = str(error)
        return decide(challenger, rivals, criteria, champion, best)


def crown(client: mlflow.MlflowClient, name: str, version: str, criteria: Criteria) -> Decision:
    """Make the version champion if it passes the gate; again, where another became champion while it was being judged."""
    for _ in range(ATTEMPTS):
        decision = judge(client, name, version, criteria)
        if not decision.promote or decision.champion == version:
            return decision
        if aliased(client, name, CHAMPION) == decision.champion:  # MLflow cannot compare and set: the gap is these lines
            if decision.best and not aliased(client, name, BEST):
                client.set_registered_model_alias(name, BEST, decision.best)
            client.set_registered_model_alias(name, CHAMPION, version)
            if decision.becomes_best:
                client.set_registered_model_alias(name, BEST, version)
            return decision
    raise UserError(f"the champion of {name} changed {ATTEMPTS} times while version {version} was judged: promote it later")


def record(client: mlflow.MlflowClient, name: str, version: str, decision: Decision) -> None:
    """Say on the version what the gate said."""
    tags = {"gate": "passed" if decision.promote else "refused", "gate.reason": "; ".join(decision.reasons)}
    tags |= {"gate.champion": decision.champion or "none", "gate.best": decision.best or "none"}
    tags |= {"gate.decision": json.dumps(decision.as_dict())}
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value[:MAX_TAG])
