"""`adapt` for a large source: tokenized in parts, each in a pod of its own, to the same bytes as in one.

A pipeline of its own: were it a branch of adapt, every run would have a first step that is hidden in a condition, and need
dsl.OneOf for the artifact that comes out, which KFP 2.16 resolves wrongly and the local runner refuses.
"""

from functools import partial
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Dataset

from components.parameters import documented
from components.resolve.component import resolve
from components.tokenize.parts import merge_parts, plan_parts, tokenize_part
from pipelines.adapt import OF_LOOPS, Outputs, stages
from pipelines.ending import cleaned_up
from pipelines.forwarding import taking


class Tokenized(NamedTuple):
    dataset: Dataset


@dsl.pipeline(name="tokenize-in-parts")
@documented
def tokenize_in_parts(settings: str, num_parts: int) -> Tokenized:
    """Tokenize a GLUE task, or your own data, to Parquet: each part in a pod of its own, then all put together."""
    planned = plan_parts(settings=settings, num_parts=num_parts)
    files = planned.outputs["source_files"]
    with dsl.ParallelFor(planned.outputs["Output"]) as part:
        tokenized = tokenize_part(settings=settings, part=part, num_parts=num_parts, source_files=files)
    merged = merge_parts(settings=settings, parts=dsl.Collected(tokenized.outputs["tokenized_part"]))
    return Tokenized(dataset=merged.outputs["dataset"])


@dsl.pipeline(name="adapt-in-parts")
@taking(resolve, without=OF_LOOPS)
def adapt_in_parts(num_parts: int, **given: Any) -> Outputs:
    """Adapt a pre-trained transformer to a GLUE task, or your own data, as adapt does, with a large source.

    tokenize-in-parts: the texts to Parquet, each part in a pod of its own. All else as in adapt.
    """
    settings = resolve(**given, tasks=[], seeds=[]).set_caching_options(enable_caching=False)
    with cleaned_up("adapt-in-parts", given["experiment"], given["overrides"]):
        return stages(settings.outputs, partial(tokenize_in_parts, num_parts=num_parts))
