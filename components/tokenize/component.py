"""components.tokenize as a KFP component."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def tokenize(settings: str, dataset: Output[Dataset], of_run: dict = {}):
    """Tokenize a GLUE task, or your own data, to Parquet."""
    from components.tokenize.step import tokenize_step

    tokenize_step(settings, dataset, of_run)
