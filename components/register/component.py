"""components.register as a KFP component."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Markdown, Model, Output

from components.image import TRAIN_IMAGE
from components.parameters import documented


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
@documented
def register(
    settings: str,
    trained: Input[Model],
    evaluation: Input[Artifact],
    card: Output[Markdown],
    model_uri: dsl.OutputPath(str),
    gate: dsl.OutputPath(str),
) -> str:
    """Register the model in MLflow and put it to the gate.

    The output is `promote` where it is to become champion, else `keep`; model_uri is what loads it, as models:/NAME/VERSION;
    gate is what the gate says.
    """
    from components.register.step import register_step

    return register_step(settings, trained, evaluation, card, model_uri, gate)
