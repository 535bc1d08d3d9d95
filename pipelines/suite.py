"""GLUE as a whole: `adapt` for every task with every seed, then one table and the zip for GLUE's server."""

from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact

from components import parameters
from components.parameters import documented
from components.suite import component
from pipelines.adapt import adapt
from pipelines.forwarding import forwarding_to

OF_EACH_RUN = ("task", "seed")
OF_OWN_DATA = ("text_columns", "label_column", "name")  # GLUE's tasks have theirs, and a registered model is of one task


class Outputs(NamedTuple):
    average: float
    glue: Artifact


@dsl.pipeline(name="suite")
@documented
@forwarding_to(adapt.pipeline_func, *OF_EACH_RUN, *OF_OWN_DATA)
def suite(
    source: str = parameters.source,
    model: str = parameters.model,
    tasks: list[str] = parameters.tasks,
    seeds: list[int] = parameters.seeds,
    **forwarded: Any,
) -> Outputs:
    """Adapt a pre-trained transformer to GLUE's tasks, with several seeds each, and make one table of the results.

    runs: every task with every seed. adapt: each of them, as the pipeline of that name does. suite: mean, spread and averages
    beside published figures, and submission.zip for GLUE's server.
    """
    planned = component.runs(tasks=tasks, seeds=seeds)
    with dsl.ParallelFor(planned.output) as run:
        adapted = adapt(task=run.glue_task, seed=run.seed, source=source, model=model, **forwarded)
    collected = component.suite(
        evaluations=dsl.Collected(adapted.outputs["evaluation"]),
        experiment=forwarded["experiment"],
        tracking_uri=forwarded["tracking_uri"],
        pipeline_run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        pipeline_task_id=dsl.PIPELINE_TASK_ID_PLACEHOLDER,
    )
    for step in (planned, collected):
        step.set_caching_options(enable_caching=False)  # for adapt's reasons
    return Outputs(average=collected.outputs["Output"], glue=collected.outputs["glue"])
