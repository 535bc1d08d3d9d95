"""A trained, evaluated model becomes a version in the MLflow registry that answers raw text, and is put to the gate."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import cli, parameters
from components.artifacts.folders import Manifest, code_digest, combined_digest, read_manifest
from components.artifacts.names import EXAMPLES, METRICS
from components.artifacts.provenance import Tracking, injected
from components.errors import UserError
from components.register.settings import Registering
from components.registry.criteria import Criteria
from components.tasks.table import Task
from components.tracking.server import use_server

if TYPE_CHECKING:
    from components.registry.gate import Decision

MAX_DESCRIPTION = 5000  # characters that every one of MLflow's databases takes


@cli.taking(Registering, Criteria)
def register(*, model_dir: Path, evaluation_dir: Path, settings: str = parameters.settings, **given: Any) -> dict[str, Any]:
    """Register a model in MLflow with signature, input example (raw text), tags, card and alias, and put it to the gate.

    What was stored is fetched again: every file must have its digest, and the model must answer the evaluation's examples as it
    did when it was evaluated; only then is there a version. Where there is a version of the same content, that one is taken. It
    becomes @champion only if it is not worse than the champion on the same examples (components/registry/gate.py).

    Uses the active MLflow run, else opens one. Returns name, version, alias, model_uri, run_id, decision and card.
    """
    values = cli.given(settings, given, Registering, Criteria, optional=cli.names_of(Tracking))
    registering, criteria = cli.pick(Registering, values), cli.pick(Criteria, values)
    model, evaluation = read_manifest(model_dir, "train"), read_manifest(evaluation_dir, "evaluate")
    if evaluation["inputs"]["model"] != model["digest"]:
        raise UserError(f"{evaluation_dir} is the evaluation of another model than {model_dir}: evaluate it first")
    results, examples = (json.loads((evaluation_dir / file).read_text()) for file in (METRICS, EXAMPLES))
    if "training" not in results:
        raise UserError(f"{evaluation_dir} was written by an earlier version of components.evaluate: evaluate again")
    task = Task.read(model_dir)
    name, alias = registering.name or (task.name if task.generated else f"glue-{task.name}"), registering.alias

    use_server(values.get("tracking_uri", ""))

    # Seconds to import: `--help` and the checks above need not wait.
    import mlflow

    from components.registry.card import write_card
    from components.registry.champion import crown, judge, record
    from components.registry.store import log_version, version_of
    from components.tracking.runs import active_or_own, reachable

    tags = _tags(task, model, evaluation, results)
    client = mlflow.MlflowClient()
    with reachable(), active_or_own("register", values.get("experiment", "")) as run:
        version = known = version_of(client, name, tags["digest.registered"])
        if not version:
            version = log_version(run.info.run_id, name, task, model_dir, evaluation_dir, tags)
        client.set_registered_model_alias(name, alias, version)
        print(f"{'already there' if known else 'registered'}: {name} version {version} as models:/{name}@{alias}", flush=True)
        decision = (crown if registering.auto_promote else judge)(client, name, version, criteria)
        card = write_card(name, version, decision, results, evaluation, examples["rows"])
        if decision.champion != version:  # else what was said when it became champion stands
            record(client, name, version, decision)
            client.update_model_version(name, version, card[:MAX_DESCRIPTION])
        client.log_text(run.info.run_id, card, "card.md")
    print(f"gate: {decision}", flush=True)
    return {
        "name": name,
        "version": version,
        "alias": alias,
        "model_uri": f"models:/{name}/{version}",
        "run_id": run.info.run_id,
        "decision": decision,
        "card": card,
    }


def next_step(registered: dict[str, Any], auto_promote: bool) -> str:
    """What a pipeline does after `register`: `promote` a version that passed and is no champion yet, else `keep`."""
    decision: Decision = registered["decision"]
    return "promote" if auto_promote and decision.promote and decision.champion != registered["version"] else "keep"


def _tags(task: Task, model: Manifest, evaluation: Manifest, results: dict[str, Any]) -> dict[str, str]:
    """What the version says of itself: versions do not inherit the tags of their run."""
    data: Manifest = evaluation["origins"]["data"]["manifest"]
    tags = {
        "task": task.name,
        "generated": task.generated,
        "base_model": model["parameters"]["model"],
        "method": model["parameters"]["method"],
        "score": f"{results['score']:.6f}",
        "labels": json.dumps(task.label_names),
        "digest.model": model["digest"],
        "digest.data": model["inputs"]["data"],
        "digest.evaluation": evaluation["digest"],
        "digest.code": model["code"],
        "digest.source": data["inputs"]["source"],
        "digest.tokenizer": data["inputs"]["tokenizer"],
        "digest.base_model": model["inputs"]["model"],
        **{f"kfp.{key}": value for key, value in injected().items() if key.startswith("pipeline_")},
        "digest.registered": combined_digest(
            {"model": model["digest"], "evaluation": evaluation["digest"], "code": code_digest("register")}
        ),
    }
    return {key: value for key, value in tags.items() if value}
