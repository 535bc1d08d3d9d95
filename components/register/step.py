"""components.register as a step of a pipeline."""

import json
from pathlib import Path
from typing import Any

from components import cli
from components.artifacts.folders import read_manifest
from components.artifacts.names import METRICS
from components.artifacts.provenance import Tracking
from components.evaluate.stage import flat
from components.register.settings import Registering
from components.register.stage import next_step, register
from components.registry.criteria import Criteria
from components.tracking.steps import begun, iteration_of


def register_step(settings: str, trained: Any, evaluation: Any, card: Any, model_uri: str, gate: str) -> str:
    """model_uri, gate: files to write."""
    folder = Path(evaluation.path)
    with begun(model_uri):
        registering, criteria, tracking = cli.parts(settings, Registering, Criteria, Tracking)
        from components.tracking.runs import stage_run

        iteration = iteration_of(evaluation.metadata.get("iteration", ""))
        with stage_run("register", tracking, iteration=iteration) as run:
            # Promotion is a step of its own, in the branch that the pipeline's graph shows.
            values = {**vars(registering), **vars(criteria), "auto_promote": False}
            registered = register(model_dir=Path(trained.path), evaluation_dir=folder, **values)
            results = json.loads((folder / METRICS).read_text())
            run.log_score(flat(results))
            run.log_generated(results["generated"])
            manifest = read_manifest(folder, "evaluate")
            inputs = manifest["inputs"]
            run.log_cached({"tokenize": inputs["data"], "train": inputs["model"], "evaluate": manifest["digest"]})
            Path(card.path).write_text(registered["card"])
            Path(model_uri).write_text(registered["model_uri"])
            Path(gate).write_text(str(registered["decision"]))
            outcome = {"model_uri": registered["model_uri"], "gate": str(registered["decision"])}
            card.metadata.update(outcome, mlflow_run_id=run.run_id)
            run.log_registered(registered["model_uri"])
            following = next_step(registered, registering.auto_promote)
            run.is_last = following != "promote"
            return following
