"""The whole product: tokenize → train → evaluate → register → promote."""

from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact

from components import parameters
from components.evaluate.component import evaluate
from components.parameters import documented
from components.promote.component import promote
from components.register.component import register
from components.tokenize.component import tokenize
from components.train.component import train
from pipelines.forwarding import forwarding_to


class Outputs(NamedTuple):
    model_uri: str
    score: float
    gate: str
    evaluation: Artifact


def stages(
    tokenize: Callable[..., dsl.PipelineTask],
    task: str,
    source: str = parameters.source,
    model: str = parameters.model,
    max_length: int = parameters.max_length,
    text_columns: list[str] = parameters.text_columns,
    label_column: str = parameters.label_column,
    skip_malformed_rows: bool = parameters.skip_malformed_rows,
    shard_rows: int = parameters.shard_rows,
    num_sample_rows: int = parameters.num_sample_rows,
    method: str = parameters.method,
    optimizer: str = parameters.optimizer,
    learning_rate: float = parameters.learning_rate,
    base_batch_size: int = parameters.base_batch_size,
    learning_rate_scaling: str = parameters.learning_rate_scaling,
    warmup_ratio: float = parameters.warmup_ratio,
    warmup_updates: int = parameters.warmup_updates,
    warmup_epochs: float = parameters.warmup_epochs,
    weight_decay: float = parameters.weight_decay,
    max_grad_norm: float = parameters.max_grad_norm,
    dropout: float = parameters.dropout,
    num_epochs: float = parameters.num_epochs,
    num_updates: int = parameters.num_updates,
    global_batch_size: int = parameters.global_batch_size,
    micro_batch_tokens: int = parameters.micro_batch_tokens,
    precision: str = parameters.precision,
    compile: bool = parameters.compile,
    seed: int = parameters.seed,
    log_interval: int = parameters.log_interval,
    checkpoint_minutes: float = parameters.checkpoint_minutes,
    num_processes: int = parameters.num_processes,
    launcher: str = parameters.launcher,
    num_workers: int = parameters.num_workers,
    min_workers: int = parameters.min_workers,
    num_gpus_per_worker: int = parameters.num_gpus_per_worker,
    cpu_per_worker: str = parameters.cpu_per_worker,
    memory_per_worker: str = parameters.memory_per_worker,
    shared_memory: str = parameters.shared_memory,
    queue: str = parameters.queue,
    priority_class: str = parameters.priority_class,
    image_pull_secrets: list[str] = parameters.image_pull_secrets,
    training_runtime: str = parameters.training_runtime,
    train_image: str = parameters.train_image,
    job_storage: str = parameters.job_storage,
    start_timeout_minutes: float = parameters.start_timeout_minutes,
    job_timeout_minutes: float = parameters.job_timeout_minutes,
    max_restarts: int = parameters.max_restarts,
    perturbation_start: float = parameters.perturbation_start,
    perturbation_steps: int = parameters.perturbation_steps,
    perturbation_init_std: float = parameters.perturbation_init_std,
    perturbation_init_norm: float = parameters.perturbation_init_norm,
    perturbation_step_size: float = parameters.perturbation_step_size,
    perturbation_radius: float = parameters.perturbation_radius,
    perturbation_norm: str = parameters.perturbation_norm,
    perturbation_scope: str = parameters.perturbation_scope,
    perturbation_divergence: str = parameters.perturbation_divergence,
    perturbation_weight: float = parameters.perturbation_weight,
    perturbation_direction: str = parameters.perturbation_direction,
    perturbation_dropout: str = parameters.perturbation_dropout,
    perturbation_interval: int = parameters.perturbation_interval,
    perturbation_fraction: float = parameters.perturbation_fraction,
    robustness_rows: int = parameters.robustness_rows,
    name: str = parameters.name,
    alias: str = parameters.alias,
    champion_margin: float = parameters.champion_margin,
    champion_min_score: float = parameters.champion_min_score,
    champion_min_robustness: float = parameters.champion_min_robustness,
    auto_promote: bool = parameters.auto_promote,
    experiment: str = parameters.experiment,
    tracking_uri: str = parameters.tracking_uri,
) -> Outputs:
    """The pipeline's steps. `tokenize` is the first of them: a component, or a pipeline that has its outputs."""
    run = {
        "experiment": experiment,
        "tracking_uri": tracking_uri,
        "pipeline_run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        "pipeline_task_id": dsl.PIPELINE_TASK_ID_PLACEHOLDER,
    }
    limits = {
        "champion_margin": champion_margin,
        "champion_min_score": champion_min_score,
        "champion_min_robustness": champion_min_robustness,
    }
    tokenized = tokenize(
        task=task,
        source=source,
        model=model,
        max_length=max_length,
        text_columns=text_columns,
        label_column=label_column,
        skip_malformed_rows=skip_malformed_rows,
        shard_rows=shard_rows,
        num_sample_rows=num_sample_rows,
        seed=seed,
        **run,
    )
    fine_tuned = train(
        dataset=tokenized.outputs["dataset"],
        model=model,
        method=method,
        optimizer=optimizer,
        learning_rate=learning_rate,
        base_batch_size=base_batch_size,
        learning_rate_scaling=learning_rate_scaling,
        warmup_ratio=warmup_ratio,
        warmup_updates=warmup_updates,
        warmup_epochs=warmup_epochs,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        dropout=dropout,
        num_epochs=num_epochs,
        num_updates=num_updates,
        global_batch_size=global_batch_size,
        micro_batch_tokens=micro_batch_tokens,
        precision=precision,
        compile=compile,
        seed=seed,
        log_interval=log_interval,
        checkpoint_minutes=checkpoint_minutes,
        perturbation_start=perturbation_start,
        perturbation_steps=perturbation_steps,
        perturbation_init_std=perturbation_init_std,
        perturbation_init_norm=perturbation_init_norm,
        perturbation_step_size=perturbation_step_size,
        perturbation_radius=perturbation_radius,
        perturbation_norm=perturbation_norm,
        perturbation_scope=perturbation_scope,
        perturbation_divergence=perturbation_divergence,
        perturbation_weight=perturbation_weight,
        perturbation_direction=perturbation_direction,
        perturbation_dropout=perturbation_dropout,
        perturbation_interval=perturbation_interval,
        perturbation_fraction=perturbation_fraction,
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
        **run,
    )
    evaluated = evaluate(
        trained=fine_tuned.outputs["trained"], dataset=tokenized.outputs["dataset"], robustness_rows=robustness_rows, **run
    )
    registered = register(
        trained=fine_tuned.outputs["trained"],
        evaluation=evaluated.outputs["evaluation"],
        name=name,
        alias=alias,
        auto_promote=auto_promote,
        **limits,
        **run,
    )
    # kfp's local runner finds a condition's value only under the name Output, that of what a component returns.
    with dsl.If(registered.outputs["Output"] == "promote", name="passes-the-gate"):
        promoted = promote(model_uri=registered.outputs["model_uri"], **limits, **run)
    for step in (tokenized, fine_tuned, evaluated, registered, promoted):
        # KFP's cache key sees neither the bytes behind `source` nor our code; and a cached step is absent from MLflow.
        step.set_caching_options(enable_caching=False)
    return Outputs(
        model_uri=registered.outputs["model_uri"],
        score=evaluated.outputs["Output"],
        gate=registered.outputs["gate"],
        evaluation=evaluated.outputs["evaluation"],
    )


@dsl.pipeline(name="adapt")
@documented
@forwarding_to(stages, "tokenize")
def adapt(**forwarded: Any) -> Outputs:
    """Adapt a pre-trained transformer to a GLUE task, or your own data, and register it in MLflow.

    tokenize: the texts to Parquet. train: fine-tune, with ScaLA or without. evaluate: GLUE's metrics, and a report. register: a
    model version in MLflow that answers raw text, and what the gate says of it. promote: it becomes champion, where it is not
    worse than the champion on the same examples.
    """
    return stages(tokenize, **forwarded)
