"""components.suite as KFP components: what to run, and the table of all that ran, here or as runs of their own."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Metrics, Output

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def runs(tasks: list[str], seeds: list[int], source: str, model: str = "") -> list[dict]:
    """Every task with every seed: for each what of its data's and of its training's settings is its own."""
    from components.suite.step import runs_step

    return runs_step(tasks, seeds, source, model)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def suite(
    experiment: str,
    overrides: dict,
    evaluations: Input[list[Artifact]],
    glue: Output[Artifact],
    figures: Output[Metrics],
    table: Output[HTML],
) -> float:
    """Make the GLUE table and the submission. The output is the average over the tasks."""
    from components.suite.step import suite_step

    return suite_step(experiment, overrides, evaluations, glue, figures, table)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def suite_of_runs(
    pipeline_run_ids: list[str],
    experiment: str,
    tracking_uri: str,
    glue: Output[Artifact],
    figures: Output[Metrics],
    table: Output[HTML],
) -> float:
    """Make the GLUE table and the submission of what runs of adapt registered. The output is the average over the tasks."""
    from components.suite.step import suite_of_runs_step

    return suite_of_runs_step(pipeline_run_ids, experiment, tracking_uri, glue, figures, table)
