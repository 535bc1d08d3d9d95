"""GLUE as a whole: `adapt` for every task with every seed, then one table and the zip for GLUE's server."""

from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact

from components.resolve.component import resolve
from components.suite import component
from pipelines.adapt import stages
from pipelines.ending import cleaned_up
from pipelines.forwarding import taking

STAGES = ("tokenize", "train", "evaluate", "register", "promote")
OF_EACH_RUN = {"task": "", "seed": 0}
OF_OWN_DATA = {"text_columns": [], "label_column": "", "name": ""}
"""GLUE's tasks have their own, and a registered model is of one task."""


class Outputs(NamedTuple):
    average: float
    glue: Artifact


@dsl.pipeline(name="all-runs")
@taking(component.runs, component.suite, without=("evaluations",))
def all_runs(tokenize: str, train: str, evaluate: str, register: str, promote: str, model: str, **given: Any) -> Outputs:
    """Adapt to every task with every seed, and make the table. Each run's settings are those given, but for what is its own.

    A pipeline of its own, since within a loop kfp's local runner takes what a step beside the loop gives for the loop's item.
    """
    settings = dict(zip(STAGES, (tokenize, train, evaluate, register, promote), strict=True))
    runs = component.runs(tasks=given["tasks"], seeds=given["seeds"], source=given["source"], model=model)
    with dsl.ParallelFor(runs.output) as run:
        adapted = stages(settings, of_data={"of_run": run.data}, of_training={"of_run": run.training})
    collected = component.suite(
        experiment=given["experiment"],
        overrides=given["overrides"],
        evaluations=dsl.Collected(adapted.evaluation),
    ).set_caching_options(enable_caching=False)  # it ends the pipeline's run in MLflow
    return Outputs(average=collected.outputs["Output"], glue=collected.outputs["glue"])


@dsl.pipeline(name="suite")
@taking(resolve, without=(*OF_EACH_RUN, *OF_OWN_DATA))
def suite(**given: Any) -> Outputs:
    """Adapt a pre-trained transformer to GLUE's tasks, with several seeds each, and make one table of the results.

    resolve: all parameters checked, settings for all runs alike. runs: every task with every seed; for each of them what adapt
    does. suite: mean, spread and averages beside published figures, and submission.zip for GLUE's server.
    """
    settings = resolve(**given, **OF_EACH_RUN, **OF_OWN_DATA).set_caching_options(enable_caching=False)  # names may have moved
    of_all = {name: given[name] for name in ("tasks", "seeds", "source", "experiment", "overrides")}
    with cleaned_up("suite", given["experiment"], given["overrides"]):
        done = all_runs(**{stage: settings.outputs[stage] for stage in STAGES}, model="", **of_all)  # which the settings have
        return Outputs(average=done.outputs["average"], glue=done.outputs["glue"])


@dsl.pipeline(name="suite-of-runs")
@taking(component.suite_of_runs)
def suite_of_runs(**given: Any) -> Outputs:
    """Make one table of what runs of adapt registered, each a task with a seed: a suite too large to be one run ends with it.

    suite-of-runs: mean, spread and averages beside published figures, and submission.zip for GLUE's server.
    """
    collected = component.suite_of_runs(**given).set_caching_options(enable_caching=False)  # MLflow is not in the key
    return Outputs(average=collected.outputs["Output"], glue=collected.outputs["glue"])
