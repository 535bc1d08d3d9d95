"""components.suite as KFP components: what to run, and the table of all that ran."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Metrics, Output

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def runs(tasks: list[str], seeds: list[int], source: str) -> list[dict]:
    """Every task with every seed: for each what of its data's and of its training's settings is its own."""
    from components.suite.step import runs_step

    return runs_step(tasks, seeds, source)


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
