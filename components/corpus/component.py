"""components.corpus as a KFP component."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def corpus(settings: str, corpus: Output[Dataset]):
    """Turn text into tokens to pre-train on, with a vocabulary of its own or a given one."""
    from components.corpus.step import corpus_step

    corpus_step(settings, corpus)
