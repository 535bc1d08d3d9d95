"""Tokenizing in parts as KFP components: what there is to do, one part, and all of them put together."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def plan_parts(
    source_files: Output[Artifact],
    num_parts: int,
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
) -> list[int]:
    """Find the source's digests, once for all parts; what cannot be tokenized in parts is refused. The output: the parts."""
    import json
    from pathlib import Path

    from components.errors import UserError, exit_codes
    from components.tokenize.stage import plan

    arguments = {
        "task": task,
        "source": source,
        "model": model,
        "output_dir": Path(),
        "max_length": max_length,
        "text_columns": text_columns,
        "label_column": label_column,
        "skip_malformed_rows": skip_malformed_rows,
        "shard_rows": shard_rows,
        "num_sample_rows": num_sample_rows,
        "seed": seed,
        "num_parts": num_parts,
    }
    with exit_codes(beside=source_files.path):
        if num_parts < 1:
            raise UserError(f"num_parts is {num_parts}: give 1 or more")
        Path(source_files.path).write_text(json.dumps(plan(arguments)[1].inputs))
        return list(range(num_parts))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def tokenize_part(
    source_files: Input[Artifact],
    tokenized_part: Output[Dataset],
    part: int,
    num_parts: int,
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
    pipeline_run_id: str,
    pipeline_task_id: str,
):
    """Tokenize a part of the source to Parquet."""
    from pathlib import Path

    from components.artifacts.folders import artifact_metadata
    from components.artifacts.provenance import set_run
    from components.errors import exit_codes
    from components.tokenize.stage import tokenize

    set_run(pipeline_run_id, pipeline_task_id)
    with exit_codes(beside=tokenized_part.path):
        manifest = tokenize(
            task=task,
            source=source,
            model=model,
            output_dir=Path(tokenized_part.path),
            max_length=max_length,
            text_columns=text_columns,
            label_column=label_column,
            skip_malformed_rows=skip_malformed_rows,
            shard_rows=shard_rows,
            num_sample_rows=num_sample_rows,
            seed=seed,
            part=part,
            num_parts=num_parts,
            source_files=Path(source_files.path),
        )
        tokenized_part.metadata.update(artifact_metadata(manifest), task=task)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def merge_parts(
    parts: Input[list[Dataset]],
    dataset: Output[Dataset],
    experiment: str,
    tracking_uri: str,
    pipeline_run_id: str,
    pipeline_task_id: str,
):
    """Put the parts together, to what one pod would have written."""
    from pathlib import Path

    from components.artifacts.folders import artifact_metadata
    from components.artifacts.provenance import set_run
    from components.errors import exit_codes
    from components.tokenize.merge import merge
    from components.tracking import stage_run

    set_run(pipeline_run_id, pipeline_task_id)
    with (
        exit_codes(beside=dataset.path),
        stage_run("tokenize", pipeline_run_id=pipeline_run_id, experiment=experiment, tracking_uri=tracking_uri) as run,
    ):
        manifest = merge(part_dirs=[Path(part.path) for part in parts], output_dir=Path(dataset.path))
        run.log_manifest(manifest)
        task = manifest["parameters"]["task"]
        dataset.metadata.update(artifact_metadata(manifest), task=task, mlflow_run_id=run.run_id)
