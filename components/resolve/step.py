"""components.resolve as a step of a pipeline."""

import os
from typing import Any

from components import cli
from components.artifacts.provenance import Tracking
from components.resolve import pretraining
from components.resolve.stage import STAGES, check, every_run, pinned, texts_of
from components.suite.stage import check_fits
from components.tracking.steps import begun

Texts = tuple[str, str, str, str, str]


def resolve_step(given: dict[str, Any], image_pull_secrets: list[str]) -> Texts:
    """Each stage's settings; of a suite, those of its first run, of which the others differ as suite.step.runs_step says.

    Args:
        given: As the component has them.
        image_pull_secrets: That the pipeline was compiled with.
    """
    with begun():
        of_one, of_many = ("task", "seed"), ("tasks", "seeds")
        is_suite = bool(given["tasks"] or given["seeds"])
        if "KFP_POD_NAME" in os.environ:  # which Kubeflow gives its pods
            check_fits(given["tasks"], given["seeds"])
        given = {name: value for name, value in given.items() if name not in (of_one if is_suite else of_many)}
        values = {"image_pull_secrets": image_pull_secrets, **pinned(check(given))}
        _open_run(values)
        texts = texts_of(every_run(values)[0], of_suite=True) if is_suite else texts_of(values)
        tokenize, train, evaluate, register, promote = (texts[stage] for stage in STAGES)
        return tokenize, train, evaluate, register, promote


def resolve_pretraining_step(given: dict[str, Any], image_pull_secrets: list[str]) -> tuple[str, ...]:
    """As `resolve_step`, of a pre-training and the adaptation after it."""
    with begun():
        if "KFP_POD_NAME" in os.environ:
            check_fits(given["tasks"], given["seeds"])
        values = {"image_pull_secrets": image_pull_secrets, **pretraining.pinned(pretraining.check(given))}
        _open_run(values)
        texts = pretraining.texts_of(values)
        return tuple(texts[stage] for stage in pretraining.STAGES)


def _open_run(values: dict[str, Any]) -> None:
    """Of this pipeline run, in MLflow."""
    if "MLFLOW_RUN_ID" in os.environ:  # which is a run that Kubeflow has opened: so it has opened the pipeline's too
        return
    from components.clean_up.stage import end_abandoned
    from components.launch.api import place
    from components.tracking.runs import open_pipeline_run  # MLflow takes seconds to import

    tracking = cli.pick(Tracking, values)
    open_pipeline_run(tracking, place())  # here, where no other step can do so at the same moment
    end_abandoned(tracking)
