"""components.tokenize as a KFP component."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def tokenize(
    dataset: Output[Dataset],
    task: str,
    source: str,
    model: str,
    max_length: int,
    text_columns: list[str],
    label_column: str,
    skip_malformed_rows: bool,
    shard_rows: int,
    num_sample_rows: int,
    seed: int,
    experiment: str,
    tracking_uri: str,
    pipeline_run_id: str,
    pipeline_task_id: str,
):
    """Tokenize a GLUE task, or your own data, to Parquet."""
    from pathlib import Path
    from typing import Any

    from components.artifacts.folders import artifact_metadata
    from components.artifacts.provenance import set_run
    from components.errors import exit_codes
    from components.tokenize.stage import plan, tokenize

    arguments: dict[str, Any] = {
        "task": task,
        "source": source,
        "model": model,
        "output_dir": Path(dataset.path),
        "max_length": max_length,
        "text_columns": text_columns,
        "label_column": label_column,
        "skip_malformed_rows": skip_malformed_rows,
        "shard_rows": shard_rows,
        "num_sample_rows": num_sample_rows,
        "seed": seed,
    }
    set_run(pipeline_run_id, pipeline_task_id)
    with exit_codes(beside=dataset.path):
        manifest = plan(arguments)[0].cached()
        if manifest:
            dataset.metadata["cached"] = True
        else:
            from components.tracking import stage_run  # seconds to import

            with stage_run(
                "tokenize", pipeline_run_id=pipeline_run_id, experiment=experiment, tracking_uri=tracking_uri
            ) as run:
                manifest = tokenize(**arguments)
                run.log_manifest(manifest)
                dataset.metadata["mlflow_run_id"] = run.run_id
        dataset.metadata.update(artifact_metadata(manifest), task=task)
