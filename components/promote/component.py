"""components.promote as a KFP component."""

from kfp import dsl

from components.image import TRAIN_IMAGE
from components.parameters import documented


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
@documented
def promote(settings: str, model_uri: str, reason: dsl.OutputPath(str)):
    """Make the registered model @champion, if it still passes the gate. The output says why it did."""
    from components.promote.step import promote_step

    promote_step(settings, model_uri, reason)
