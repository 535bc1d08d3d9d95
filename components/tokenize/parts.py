"""Tokenizing in parts as KFP components: what there is to do, one part, and all of them put together."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def plan_parts(settings: str, num_parts: int, source_files: Output[Artifact]) -> list[int]:
    """Find the source's digests, once for all parts; what cannot be tokenized in parts is refused. The output: the parts."""
    from components.tokenize.step import plan_step

    return plan_step(settings, num_parts, source_files)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def tokenize_part(settings: str, part: int, num_parts: int, source_files: Input[Artifact], tokenized_part: Output[Dataset]):
    """Tokenize a part of the source to Parquet."""
    from components.tokenize.step import part_step

    part_step(settings, part, num_parts, source_files, tokenized_part)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def merge_parts(settings: str, parts: Input[list[Dataset]], dataset: Output[Dataset]):
    """Put the parts together, to what one pod would have written."""
    from components.tokenize.step import merge_step

    merge_step(settings, parts, dataset)
