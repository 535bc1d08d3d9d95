"""The whole product: resolve → tokenize → train → evaluate → register → promote."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact

from components.evaluate.component import evaluate
from components.promote.component import promote
from components.register.component import register
from components.resolve.component import resolve
from components.tokenize.component import tokenize
from components.train.component import train
from pipelines.ending import cleaned_up
from pipelines.forwarding import taking

OF_LOOPS = ("tasks", "seeds")


class Outputs(NamedTuple):
    model_uri: str
    score: float
    gate: str
    evaluation: Artifact


def stages(
    settings: Mapping[str, Any],
    tokenize: Callable[..., dsl.PipelineTask] = tokenize,
    of_data: Mapping[str, Any] = {},
    of_training: Mapping[str, Any] = {},
) -> Outputs:
    """All steps but the first. `tokenize` is a component, or a pipeline that has its outputs."""
    tokenized = tokenize(settings=settings["tokenize"], **of_data)
    dataset = tokenized.outputs["dataset"]
    fine_tuned = train(settings=settings["train"], dataset=dataset, **of_training)
    trained = fine_tuned.outputs["trained"]
    evaluated = evaluate(settings=settings["evaluate"], trained=trained, dataset=dataset)
    evaluation = evaluated.outputs["evaluation"]
    registered = register(settings=settings["register"], trained=trained, evaluation=evaluation)
    # kfp's local runner finds a condition's value only under the name Output, that of what a component returns.
    with dsl.If(registered.outputs["Output"] == "promote", name="passes-the-gate"):
        promoted = promote(settings=settings["promote"], model_uri=registered.outputs["model_uri"])
    for step in (registered, promoted):  # who is champion may have changed since; the other steps make the same of the same
        step.set_caching_options(enable_caching=False)
    return Outputs(registered.outputs["model_uri"], evaluated.outputs["Output"], registered.outputs["gate"], evaluation)


@dsl.pipeline(name="adapt")
@taking(resolve, without=OF_LOOPS)
def adapt(**given: Any) -> Outputs:
    """Adapt a pre-trained transformer to a GLUE task, or your own data, and register it in MLflow.

    resolve: all parameters checked, each stage's settings. tokenize: the texts to Parquet. train: fine-tune, plainly or with
    ScaLA. evaluate: GLUE's metrics, and a report. register: a model version in MLflow that answers raw text, and what the gate
    says of it. promote: it becomes champion, where it is not worse than the champion on the same examples.
    """
    settings = resolve(**given, tasks=[], seeds=[]).set_caching_options(enable_caching=False)  # names may have moved
    with cleaned_up("adapt", given["experiment"], given["overrides"]):
        return stages(settings.outputs)
