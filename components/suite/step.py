"""components.suite as steps of a pipeline: what its loop goes over, and the table."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.artifacts.folders import artifact_metadata
from components.artifacts.provenance import Tracking
from components.suite.stage import PAGE, SUBMISSION, TABLE, flat, runs, suite
from components.tracking.steps import begun


def runs_step(tasks: Sequence[str], seeds: Sequence[float], source: str) -> list[dict[str, Any]]:
    """Every task with every seed, and what of its stages' settings is its own."""
    with begun():
        every = runs(tasks, [int(seed) for seed in seeds])  # KFP's numbers have a fraction
        print(f"{len(every)} runs: every one of {', '.join(tasks)} with every seed", flush=True)
        return [
            {
                "data": {"task": run["glue_task"], **({"seed": run["seed"]} if source == "sample" else {})},
                "training": {"seed": run["seed"], "iteration": f"task={run['glue_task']}, seed={run['seed']}"},
            }
            for run in every
        ]


def suite_step(
    experiment: str, overrides: dict[str, Any], evaluations: Sequence[Any], glue: Any, figures: Any, table: Any
) -> float:
    folder = Path(glue.path)
    with begun(glue.path):
        from components.tracking.runs import stage_run

        with stage_run("suite", Tracking(experiment, overrides.get("tracking_uri", "")), last=True) as run:
            manifest = suite(evaluation_dirs=[Path(evaluation.path) for evaluation in evaluations], output_dir=folder)
            results = json.loads((folder / TABLE).read_text())
            run.log_manifest(manifest)
            run.log_metrics(flat(results))
            run.log_folder(folder, *(name for name in (PAGE, SUBMISSION) if (folder / name).is_file()))
            glue.metadata.update(artifact_metadata(manifest), mlflow_run_id=run.run_id)
        for name, value in flat(results).items():
            figures.log_metric(name, value)
        Path(figures.path).write_text(json.dumps(flat(results)))  # KFP's local cache wants a file of every artifact
        shutil.copyfile(folder / PAGE, table.path)
        return float(results["averages"]["average"]["mean"])
