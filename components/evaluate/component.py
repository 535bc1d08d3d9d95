"""components.evaluate as a KFP component."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

from components.image import TRAIN_IMAGE
from components.parameters import documented


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
@documented
def evaluate(
    settings: str,
    trained: Input[Model],
    dataset: Input[Dataset],
    evaluation: Output[Artifact],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    summary: Output[Markdown],
    report: Output[HTML],
) -> float:
    """Measure the model on the task's validation splits. The output is the score: the mean of the task's GLUE metrics."""
    from components.evaluate.step import evaluate_step

    return evaluate_step(settings, trained, dataset, evaluation, metrics, confusion, summary, report)
