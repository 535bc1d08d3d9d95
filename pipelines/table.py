"""Every pipeline, by name."""

from collections.abc import Mapping

from kfp.dsl.graph_component import GraphComponent

from pipelines.adapt import adapt
from pipelines.doctor import doctor
from pipelines.in_parts import adapt_in_parts
from pipelines.pretrain import pretrain
from pipelines.suite import suite, suite_of_runs

PIPELINES: Mapping[str, GraphComponent] = {
    it.name: it for it in (adapt, adapt_in_parts, suite, suite_of_runs, pretrain, doctor)
}
