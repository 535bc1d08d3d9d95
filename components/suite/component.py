"""components.suite as KFP components: what to run, and the table of all that ran."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Metrics, Output

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def runs(tasks: list[str], seeds: list[int]) -> list[dict]:  # type: ignore[type-arg]
    """Every task with every seed; what cannot be run is refused here, before anything else has started."""
    from components.errors import exit_codes
    from components.suite.stage import runs

    with exit_codes():
        every = runs(tasks, [int(seed) for seed in seeds])  # KFP's numbers have a fraction
        print(
            f"{len(every)} runs: {', '.join(tasks)}, each with the seeds {', '.join(str(int(seed)) for seed in seeds)}",
            flush=True,
        )
        return every


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def suite(
    evaluations: Input[list[Artifact]],
    glue: Output[Artifact],
    figures: Output[Metrics],
    table: Output[HTML],
    experiment: str,
    tracking_uri: str,
    pipeline_run_id: str,
    pipeline_task_id: str,
) -> float:
    """Make the GLUE table and the submission. The output is the average over the tasks."""
    import json
    import shutil
    from pathlib import Path

    from components.artifacts.folders import artifact_metadata
    from components.artifacts.provenance import set_run
    from components.errors import exit_codes
    from components.suite.stage import PAGE, SUBMISSION, TABLE, flat, suite
    from components.tracking import stage_run

    folder = Path(glue.path)
    set_run(pipeline_run_id, pipeline_task_id)
    with (
        exit_codes(beside=glue.path),
        stage_run("suite", pipeline_run_id=pipeline_run_id, experiment=experiment, tracking_uri=tracking_uri, last=True) as run,
    ):
        manifest = suite(evaluation_dirs=[Path(evaluation.path) for evaluation in evaluations], output_dir=folder)
        results = json.loads((folder / TABLE).read_text())
        run.log_manifest(manifest)
        run.log_metrics(flat(results))
        run.log_folder(folder, PAGE, SUBMISSION)
        glue.metadata.update(artifact_metadata(manifest), mlflow_run_id=run.run_id)
        for name, value in flat(results).items():
            figures.log_metric(name, value)
        Path(figures.path).write_text(json.dumps(flat(results)))  # KFP's local cache wants a file of every artifact
        shutil.copyfile(folder / PAGE, table.path)
        return float(results["averages"]["average"]["mean"])
