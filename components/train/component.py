"""components.train as a KFP component."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.image import TRAIN_IMAGE
from components.parameters import documented


@dsl.component(
    base_image=TRAIN_IMAGE,
    install_kfp_package=False,
    # What a pipeline's author asks for on the step is meant for the ranks.
    task_config_passthroughs=[
        dsl.TaskConfigField.RESOURCES,
        dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
        dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
        dsl.TaskConfigField.KUBERNETES_AFFINITY,
        dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.ENV, apply_to_task=True),
        dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.KUBERNETES_VOLUMES, apply_to_task=True),
    ],
)
@documented
def train(
    settings: str,
    dataset: Input[Dataset],
    trained: Output[Model],
    logs: Output[Artifact],
    task_config: dsl.TaskConfig,
    of_run: dict = {},
):
    """Fine-tune a pre-trained transformer on tokenized data."""
    from components.train.step import train_step

    train_step(settings, dataset, trained, logs, task_config, of_run)
