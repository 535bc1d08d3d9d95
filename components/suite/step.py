"""components.suite as steps of a pipeline: what its loop goes over, and the table."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.artifacts.folders import Artifact, artifact_metadata
from components.artifacts.provenance import Tracking
from components.suite.stage import PAGE, SUBMISSION, TABLE, collect, flat, plan, runs
from components.tracking.steps import begun


def runs_step(tasks: Sequence[str], seeds: Sequence[float], source: str, model: str = "") -> list[dict[str, Any]]:
    """Every task with every seed, and what of its stages' settings is its own.

    Args:
        model: Of all runs, where it was not known to the first step.
    """
    of_model = {"model": model} if model else {}
    with begun():
        every = runs(tasks, [int(seed) for seed in seeds])  # KFP's numbers have a fraction
        print(f"{len(every)} runs: every one of {', '.join(tasks)} with every seed", flush=True)
        return [
            {
                "data": {"task": run["glue_task"], **({"seed": run["seed"]} if source == "sample" else {}), **of_model},
                "training": {"seed": run["seed"], "iteration": f"task={run['glue_task']}, seed={run['seed']}", **of_model},
            }
            for run in every
        ]


def suite_step(
    experiment: str, overrides: dict[str, Any], evaluations: Sequence[Any], glue: Any, figures: Any, table: Any
) -> float:
    """The table of what the loop has evaluated."""
    with begun(glue.path):
        folders = [Path(evaluation.path) for evaluation in evaluations]
        tracking = Tracking(experiment, overrides.get("tracking_uri", ""))
        return _tell(*plan(folders, Path(glue.path)), tracking, glue, figures, table)


def suite_of_runs_step(
    pipeline_run_ids: Sequence[str], experiment: str, tracking_uri: str, glue: Any, figures: Any, table: Any
) -> float:
    """The table of what other pipeline runs have registered."""
    with begun(glue.path), tempfile.TemporaryDirectory() as folder:
        from components.suite.registered import fetch_evaluations  # MLflow takes seconds

        tracking = Tracking(experiment, tracking_uri)
        uris = fetch_evaluations(pipeline_run_ids, tracking, Path(folder))
        return _tell(*plan(list(uris), Path(glue.path), uris), tracking, glue, figures, table)


def _tell(
    artifact: Artifact, results: dict[Path, dict[str, Any]], tracking: Tracking, glue: Any, figures: Any, table: Any
) -> float:
    """Make the table, and show it in MLflow and in Kubeflow. Returns the average over the tasks."""
    from components.tracking.runs import stage_run

    folder = Path(glue.path)
    with stage_run("suite", tracking, last=True) as run:
        manifest = collect(artifact, results)
        numbers = json.loads((folder / TABLE).read_text())
        run.log_manifest(manifest)
        run.log_metrics(flat(numbers))
        run.log_folder(folder, *(name for name in (PAGE, SUBMISSION) if (folder / name).is_file()))
        glue.metadata.update(artifact_metadata(manifest), mlflow_run_id=run.run_id)
    for name, value in flat(numbers).items():
        figures.log_metric(name, value)
    Path(figures.path).write_text(json.dumps(flat(numbers)))  # KFP's local cache wants a file of every artifact
    shutil.copyfile(folder / PAGE, table.path)
    return float(numbers["averages"]["average"]["mean"])
