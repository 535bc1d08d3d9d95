"""components.pretrain as a KFP component."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.image import TRAIN_IMAGE
from components.parameters import documented


@dsl.component(
    base_image=TRAIN_IMAGE,
    install_kfp_package=False,
    # As train has them: what is asked for on the step is meant for the ranks.
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
def pretrain(
    settings: str,
    corpus: Input[Dataset],
    pretrained: Output[Model],
    logs: Output[Artifact],
    task_config: dsl.TaskConfig,
) -> str:
    """Train a transformer to predict masked tokens. The output is the model's name, which `model` takes."""
    from components.pretrain.step import pretrain_step

    return pretrain_step(settings, corpus, pretrained, logs, task_config)
