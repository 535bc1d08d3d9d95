"""From raw text to the GLUE table: a corpus, a model pre-trained on it, and that model adapted to tasks with several seeds."""

from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Model

from components.corpus.component import corpus
from components.pretrain import component
from components.resolve.component import resolve_pretraining
from pipelines.ending import cleaned_up
from pipelines.forwarding import taking
from pipelines.suite import STAGES, all_runs


class Outputs(NamedTuple):
    average: float
    glue: Artifact
    pretrained: Model


@dsl.pipeline(name="pretrain")
@taking(resolve_pretraining)
def pretrain(**given: Any) -> Outputs:
    """Pre-train a transformer on text, adapt it to GLUE's tasks, with several seeds each, and make one table of the results.

    resolve-pretraining: all parameters checked, each stage's settings. corpus: the text as tokens, with a vocabulary. pretrain:
    a network that predicts masked tokens. all-runs: what suite does, from that model.
    """
    settings = resolve_pretraining(**given).set_caching_options(enable_caching=False)  # names may have moved
    with cleaned_up("pretrain", given["experiment"], given["overrides"]):
        text = corpus(settings=settings.outputs["corpus"])
        model = component.pretrain(settings=settings.outputs["pretrain"], corpus=text.outputs["corpus"])
        done = all_runs(
            **{stage: settings.outputs[stage] for stage in STAGES},
            model=model.outputs["Output"],
            source=given["task_source"],
            **{name: given[name] for name in ("tasks", "seeds", "experiment", "overrides")},
        )
        return Outputs(done.outputs["average"], done.outputs["glue"], model.outputs["pretrained"])
