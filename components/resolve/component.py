"""components.resolve as a KFP component: its parameters are the form that people see in the Kubeflow UI."""

from typing import NamedTuple

from kfp import dsl

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def resolve(
    task: str,
    source: str,
    model: str,
    recipe: str,
    num_epochs: float,
    learning_rate: float,
    global_batch_size: int,
    max_length: int,
    text_columns: list[str],
    label_column: str,
    seed: int,
    num_workers: int,
    num_gpus_per_worker: int,
    cpu_per_worker: str,
    memory_per_worker: str,
    launcher: str,
    name: str,
    auto_promote: bool,
    experiment: str,
    overrides: dict,
    tasks: list[str],
    seeds: list[int],
    image_pull_secrets: list[str] = [],
) -> NamedTuple("Resolved", tokenize=str, train=str, evaluate=str, register=str, promote=str):  # type: ignore[valid-type]
    """Check all parameters together, and hand each stage its own settings."""
    given = {name: value for name, value in locals().items() if name != "image_pull_secrets"}

    from components.resolve.step import resolve_step

    return resolve_step(given, image_pull_secrets)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def resolve_pretraining(
    source: str,
    initial_model: str,
    vocabulary: str,
    vocabulary_size: int,
    layers: int,
    hidden: int,
    sequence_length: int,
    recipe: str,
    num_epochs: float,
    learning_rate: float,
    global_batch_size: int,
    seed: int,
    num_workers: int,
    num_gpus_per_worker: int,
    tasks: list[str],
    seeds: list[int],
    task_source: str,
    adaptation: dict,
    experiment: str,
    overrides: dict,
    image_pull_secrets: list[str] = [],
) -> NamedTuple(  # type: ignore[valid-type]
    "Resolved", corpus=str, pretrain=str, tokenize=str, train=str, evaluate=str, register=str, promote=str
):
    """Check all parameters of a pre-training and of what is adapted from it, and hand each stage its own settings."""
    given = {name: value for name, value in locals().items() if name != "image_pull_secrets"}

    from components.resolve.step import resolve_pretraining_step

    return resolve_pretraining_step(given, image_pull_secrets)
