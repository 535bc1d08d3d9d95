"""`adapt` for a large source: tokenized in parts, each in a pod of its own, to the same bytes as in one.

A pipeline of its own: were it a branch of adapt, every run would have a first step that is hidden in a condition, and need
dsl.OneOf for the artifact that comes out, which KFP 2.16 resolves wrongly and the local runner refuses.
"""

from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, PipelineTask

from components.parameters import documented
from components.tokenize.parts import merge_parts, plan_parts, tokenize_part
from pipelines.adapt import Outputs, adapt, stages
from pipelines.forwarding import forwarding_to


class Tokenized(NamedTuple):
    dataset: Dataset


@dsl.pipeline(name="tokenize-in-parts")
@documented
def tokenize_in_parts(
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
    experiment: str,
    tracking_uri: str,
) -> Tokenized:
    """Tokenize a GLUE task, or your own data, to Parquet: each part in a pod of its own, then all put together."""
    source_and_model = {
        "num_parts": num_parts,
        "task": task,
        "source": source,
        "model": model,
        "max_length": max_length,
        "text_columns": text_columns,
        "label_column": label_column,
        "skip_malformed_rows": skip_malformed_rows,
        "shard_rows": shard_rows,
        "num_sample_rows": num_sample_rows,
        "seed": seed,
    }
    run = {"pipeline_run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "pipeline_task_id": dsl.PIPELINE_TASK_ID_PLACEHOLDER}
    planned = plan_parts(**source_and_model)
    with dsl.ParallelFor(planned.outputs["Output"]) as part:
        tokenized = tokenize_part(part=part, source_files=planned.outputs["source_files"], **source_and_model, **run)
    parts = dsl.Collected(tokenized.outputs["tokenized_part"])
    merged = merge_parts(parts=parts, experiment=experiment, tracking_uri=tracking_uri, **run)
    for step in (planned, tokenized, merged):
        step.set_caching_options(enable_caching=False)  # for adapt's reasons
    return Tokenized(dataset=merged.outputs["dataset"])


@dsl.pipeline(name="adapt-in-parts")
@documented
@forwarding_to(adapt.pipeline_func)
def adapt_in_parts(num_parts: int, **forwarded: Any) -> Outputs:
    """Adapt a pre-trained transformer to a GLUE task, or your own data, as adapt does, with a large source.

    tokenize-in-parts: the texts to Parquet, each part in a pod of its own. All else as in adapt.
    """

    def tokenize(pipeline_run_id: str, pipeline_task_id: str, **given: Any) -> PipelineTask:
        return tokenize_in_parts(num_parts=num_parts, **given)  # its steps have task ids of their own

    return stages(tokenize, **forwarded)
