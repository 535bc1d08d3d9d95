"""components.train as a KFP component. The one place that knows both the training stage and how its ranks come to life."""

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
    dataset: Input[Dataset],
    trained: Output[Model],
    logs: Output[Artifact],
    model: str,
    method: str,
    optimizer: str,
    learning_rate: float,
    base_batch_size: int,
    learning_rate_scaling: str,
    warmup_ratio: float,
    warmup_updates: int,
    warmup_epochs: float,
    weight_decay: float,
    max_grad_norm: float,
    dropout: float,
    num_epochs: float,
    num_updates: int,
    global_batch_size: int,
    micro_batch_tokens: int,
    precision: str,
    compile: bool,
    seed: int,
    log_interval: int,
    checkpoint_minutes: float,
    perturbation_start: float,
    perturbation_steps: int,
    perturbation_init_std: float,
    perturbation_init_norm: float,
    perturbation_step_size: float,
    perturbation_radius: float,
    perturbation_norm: str,
    perturbation_scope: str,
    perturbation_divergence: str,
    perturbation_weight: float,
    perturbation_direction: str,
    perturbation_dropout: str,
    perturbation_interval: int,
    perturbation_fraction: float,
    num_processes: int,
    launcher: str,
    num_workers: int,
    min_workers: int,
    num_gpus_per_worker: int,
    cpu_per_worker: str,
    memory_per_worker: str,
    shared_memory: str,
    queue: str,
    priority_class: str,
    image_pull_secrets: list[str],
    training_runtime: str,
    train_image: str,
    job_storage: str,
    start_timeout_minutes: float,
    job_timeout_minutes: float,
    max_restarts: int,
    experiment: str,
    tracking_uri: str,
    pipeline_run_id: str,
    pipeline_task_id: str,
    task_config: dsl.TaskConfig,
):
    """Fine-tune a pre-trained transformer on tokenized data."""
    from pathlib import Path

    from components.artifacts.folders import artifact_metadata, read_manifest
    from components.artifacts.names import TRAINING_LOG
    from components.artifacts.provenance import set_run
    from components.errors import exit_codes
    from components.launch.placement import Placement, Places, launched
    from components.train.stage import plan

    arguments = {
        "data_dir": dataset.path,
        "output_dir": trained.path,
        "model": model,
        "method": method,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "base_batch_size": base_batch_size,
        "learning_rate_scaling": learning_rate_scaling,
        "warmup_ratio": warmup_ratio,
        "warmup_updates": warmup_updates,
        "warmup_epochs": warmup_epochs,
        "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm,
        "dropout": dropout,
        "num_epochs": num_epochs,
        "num_updates": num_updates,
        "global_batch_size": global_batch_size,
        "micro_batch_tokens": micro_batch_tokens,
        "precision": precision,
        "compile": compile,
        "seed": seed,
        "log_interval": log_interval,
        "checkpoint_minutes": checkpoint_minutes,
        "perturbation_start": perturbation_start,
        "perturbation_steps": perturbation_steps,
        "perturbation_init_std": perturbation_init_std,
        "perturbation_init_norm": perturbation_init_norm,
        "perturbation_step_size": perturbation_step_size,
        "perturbation_radius": perturbation_radius,
        "perturbation_norm": perturbation_norm,
        "perturbation_scope": perturbation_scope,
        "perturbation_divergence": perturbation_divergence,
        "perturbation_weight": perturbation_weight,
        "perturbation_direction": perturbation_direction,
        "perturbation_dropout": perturbation_dropout,
        "perturbation_interval": perturbation_interval,
        "perturbation_fraction": perturbation_fraction,
    }
    placement = Placement(
        num_processes=num_processes,
        launcher=launcher,
        num_workers=num_workers,
        min_workers=min_workers,
        num_gpus_per_worker=num_gpus_per_worker,
        cpu_per_worker=cpu_per_worker,
        memory_per_worker=memory_per_worker,
        shared_memory=shared_memory,
        queue=queue,
        priority_class=priority_class,
        image_pull_secrets=image_pull_secrets,
        training_runtime=training_runtime,
        train_image=train_image,
        job_storage=job_storage,
        start_timeout_minutes=start_timeout_minutes,
        job_timeout_minutes=job_timeout_minutes,
        max_restarts=max_restarts,
        task_config=task_config,
    )
    places = Places(
        dataset=(Path(dataset.path), dataset.uri), trained=(Path(trained.path), trained.uri), logs=(Path(logs.path), logs.uri)
    )
    set_run(pipeline_run_id, pipeline_task_id)
    with exit_codes(beside=trained.path):
        manifest = plan(arguments).cached()
        if manifest:
            trained.metadata["cached"] = True
        else:
            # MLflow takes seconds to import, and so does torch: the ranks start meanwhile.
            with launched(arguments, placement, places) as wait:
                from components.tracking import stage_run

                with stage_run(
                    "train", pipeline_run_id=pipeline_run_id, experiment=experiment, tracking_uri=tracking_uri
                ) as run:
                    with run.following(Path(trained.path), TRAINING_LOG):
                        wait()
                    manifest = read_manifest(Path(trained.path), "train")
                    run.log_manifest(manifest)
                    trained.metadata["mlflow_run_id"] = run.run_id
        trained.framework = "pytorch"
        trained.metadata.update(artifact_metadata(manifest), base_model=model, method=method)
