"""Fine-tuning, from a tokenized task to a model: check, plan, build, train, save. One program for 1 or N ranks."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import cli, parameters
from components.artifacts.folders import Artifact, Manifest, origin, read_manifest
from components.artifacts.names import STATISTICS, TOKENIZER, TRAINING, TRAINING_CLOCK
from components.artifacts.splits import find_split
from components.errors import UserError
from components.modeling.abilities import check_depth
from components.modeling.load import (
    files_digest,
    load_model,
    load_tokenizer,
    model_files,
    model_origin,
    model_type,
    pinned,
    tokenizer_digest,
)
from components.storage.state import check_state
from components.tasks.table import Task
from components.train.effective import timings, took_effect
from components.train.settings import OF_METHODS, Settled, Training, as_given, check, settle
from components.training.budget import Updates

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from components.training.data import Examples
    from components.training.loop import Course
    from components.training.objectives import Objective
    from components.training.ranks import Ranks
    from components.training.run import Run

UNDECISIVE = ("checkpoint_minutes", "model_state")
"""Parameters that decide nothing of what comes out."""
ASIDE = {TRAINING_CLOCK: "", TRAINING: "timings"}


@cli.taking(Training, OF_METHODS)
def train(
    *,
    data_dir: Path,
    output_dir: Path,
    checkpoint_dir: Path | None = parameters.checkpoint_dir,
    settings: str = parameters.settings,
    **given: Any,
) -> Manifest:
    """Fine-tune a pre-trained transformer on tokenized data; on many ranks under torchrun.

    Writes model.safetensors, config.json with the label names, the tokenizer, metrics.jsonl and timings.jsonl (a line an
    update), training.json (the recipe, what was asked for, what took effect and how long it took), task.json and manifest.json.
    Stopped or killed and called again, it goes on from its last checkpoint and writes what it would have.
    """
    asked = as_given(settings, given)
    artifact, settled = plan(data_dir, output_dir, asked)
    if manifest := artifact.cached():
        return manifest
    if not find_split(data_dir, "train"):
        raise UserError(f"{data_dir} has no train split: nothing to train on")
    return fit(artifact, settled, asked, checkpoint_dir, partial(_material, data_dir, settled.training))


@dataclass(frozen=True)
class Material:
    """What a network learns, and from what.

    load: makes the network, from torch's global seed.  write: what else goes into the model's folder.  effective: what took
    effect besides the settings of a training.
    """

    split: "Examples"
    tokenizer: "PreTrainedTokenizerBase"
    objective: "Objective"
    load: "Callable[[], PreTrainedModel]"
    write: Callable[[Path], None]
    effective: Mapping[str, Any] = field(default_factory=dict)


def fit(
    artifact: Artifact,
    settled: Settled,
    asked: Mapping[str, Any],
    checkpoint_dir: Path | None,
    read: Callable[[], Material],
) -> Manifest:
    """Train what `read` gives, on the ranks that torchrun describes, and write the model as `artifact`."""
    # Seconds to import: `--help`, the checks above and what is cached need not wait.
    from components.training import checkpoint
    from components.training.depth import build_depth
    from components.training.interrupts import deferred_signals
    from components.training.log import MetricsLog, say
    from components.training.loop import run_updates
    from components.training.optimizers import take_average
    from components.training.ranks import join_ranks
    from components.training.update import Gradients

    training, method = settled.training, settled.method
    with join_ranks() as ranks:
        material = read()
        split, tokenizer = material.split, material.tokenizer
        run, course, exchange = _build(training, material, ranks)
        folder_of_checkpoints = None
        if training.checkpoint_minutes and ranks.rank == 0:
            folder_of_checkpoints = checkpoint_dir or checkpoint.default_folder(artifact)
        checkpoints = checkpoint.Checkpoints(folder_of_checkpoints, artifact.identity, ranks, training.checkpoint_minutes)
        state = checkpoints.resume(run)
        if ranks.rank == 0:
            _introduce(settled, took_effect(settled, course, run, len(split), ranks), ranks)
            if state:
                say(f"train: goes on at update {run.done} of {course.num_updates} (checkpoint of {state.saved})")

        with (
            deferred_signals() as signalled,
            checkpoint.kept_until_done(folder_of_checkpoints),
            artifact.building() if ranks.rank == 0 else contextlib.nullcontext(None) as folder,
        ):
            log = MetricsLog(
                folder, training.method, method.part_names, ranks, course.num_examples,
                training.log_interval, run.arithmetic.scaler.is_enabled(), signalled,
            )  # fmt: skip
            if state:
                log.go_on(state.metrics, state.numbers["seconds"])
            gradients = Gradients(
                run, exchange, method, material.objective, split, tokenizer.pad_token_id, ranks, log, signalled,
                build_depth(training.depth, training.depth_keep, training.depth_rate),
            )  # fmt: skip
            del exchange
            ending = run_updates(run, course, gradients, log, checkpoints)
            gradients.leave_ddp()
            if ending:
                checkpoints.save(run, log)
            seconds = log.seconds
            log.close()
            if ending:
                if folder:
                    say(f"train: stopped after update {run.done} of {course.num_updates}")
                raise ending
            if folder:
                take_average(run.optimizer)
                run.network.float().save_pretrained(folder)
                tokenizer.save_pretrained(folder)
                material.write(folder)
                effective = {**took_effect(settled, course, run, len(split), ranks), "num_tokens": run.spent.tokens}
                effective |= material.effective
                kept = {name: value for name, value in asked.items() if name not in UNDECISIVE}
                record = {"recipe": str(settled), "asked": kept, "took_effect": effective}
                record["timings"] = timings(run, ranks, seconds)
                (folder / TRAINING).write_text(json.dumps(record, indent=1) + "\n")
        return artifact.manifest() if ranks.rank == 0 else {}


def _material(data_dir: Path, training: Training) -> Material:
    from components.training.data import read_split
    from components.training.objectives import objective_of

    task, split = Task.read(data_dir), read_split(data_dir, "train")
    tokenizer = _tokenizer(data_dir, training.model)
    load = partial(load_model, training.model, task, len(tokenizer), training.dropout)
    return Material(split, tokenizer, objective_of(task.is_regression), load, task.write)


def plan(data_dir: Path, output_dir: Path, given: Mapping[str, Any]) -> tuple[Artifact, Settled]:
    """What `train` will write with these parameters, and what of them takes effect; nothing slow is imported to say so.

    Raises:
        UserError: a parameter that is none or that the model cannot have, or data that are not whole.
    """
    check(given)
    if "model" in given:
        given = {**given, "model": pinned(given["model"])}
    data = read_manifest(data_dir, "tokenize")
    settled = settle(given, _num_rows(data_dir))
    parameters = {name: value for name, value in settled.values.items() if name not in UNDECISIVE}
    model = settled.training.model
    check_state(model, settled.training.model_state)
    if settled.training.depth != "all":
        check_depth(settled.training.depth, model_type(model))
    files = model_files(model)
    inputs = {"data": data["digest"], "model": files_digest(model, files)}
    origins = {"data": origin(data_dir, data), "model": model_origin(model, files)}
    return Artifact(output_dir, "train", parameters, inputs, origins, aside=ASIDE, record=TRAINING), settled


def planned(data_dir: Path, output_dir: Path, settings: str) -> Artifact:
    """What `train` will write with these settings."""
    return plan(data_dir, output_dir, as_given(settings, {}))[0]


def _num_rows(data_dir: Path) -> int:
    """Of the training split; 0 where there is none."""
    splits = json.loads((data_dir / STATISTICS).read_text())["splits"]
    return int(splits["train"]["rows"]) if "train" in splits else 0


def _tokenizer(data_dir: Path, model: str) -> "PreTrainedTokenizerBase":
    """The data's; UserError where the model's is another."""
    tokenizer = load_tokenizer(str(data_dir / TOKENIZER))
    if tokenizer_digest(load_tokenizer(model)) != tokenizer_digest(tokenizer):
        meant = read_manifest(data_dir, "tokenize")["parameters"]["model"]
        raise UserError(f"{data_dir} was tokenized for {meant}, whose tokens {model} does not share")
    return tokenizer


def _build(training: Training, material: Material, ranks: "Ranks") -> tuple["Run", "Course", "DistributedDataParallel | None"]:
    """The run before its first update, what was settled for it, and what exchanges gradients where there are many ranks."""
    import torch

    from components.modeling import prepare
    from components.modeling.compiled import compile_layers
    from components.training.loop import Course
    from components.training.optimizers import OPTIMIZERS, build_optimizer, check_precision, peak_learning_rate
    from components.training.precision import choose_arithmetic
    from components.training.randomness import NEW_LAYERS, generator_seed
    from components.training.run import Run
    from components.training.selection import Shuffled, num_examples, updates_per_epoch
    from components.training.update import exchanging

    split, batch_size = material.split, training.global_batch_size
    per_epoch = updates_per_epoch(len(split), batch_size)
    num_updates = training.num_updates or math.ceil(training.num_epochs * per_epoch)
    num_warmup = (
        training.warmup_updates or round(training.warmup_epochs * per_epoch) or round(training.warmup_ratio * num_updates)
    )
    if num_warmup > num_updates:
        raise UserError(f"the warm-up takes {num_warmup} updates, the whole run has {num_updates}: shorten the warm-up")
    peak = peak_learning_rate(
        training.optimizer, training.learning_rate, batch_size, training.base_batch_size, training.learning_rate_scaling
    )
    course = Course(
        budget=Updates(num_updates),
        peak=peak,
        warmup=num_warmup / num_updates,
        max_grad_norm=training.max_grad_norm,
        global_batch_size=batch_size,
        updates_per_epoch=per_epoch,
        num_updates=num_updates,
        num_examples=num_examples(num_updates, len(split), batch_size),
        seed=training.seed,
        decays=OPTIMIZERS[training.optimizer].decays,
    )

    torch.manual_seed(generator_seed(training.seed, NEW_LAYERS))
    network = material.load()
    arithmetic = choose_arithmetic(training.precision, ranks.device)
    check_precision(training.optimizer, arithmetic.name)
    if arithmetic.name == "fp64":
        network.double()
    prepare.prepare_model(network, ranks.device, training.depth)
    if training.compile:
        compile_layers(network)
    optimizer = build_optimizer(
        training.optimizer, network, peak, training.weight_decay, training.decay_vectors,
        training.adam_epsilon, training.beta1, training.beta2, training.sophia_rho, training.hessian_interval,
    )  # fmt: skip
    run = Run(network, optimizer, arithmetic, Shuffled(len(split), batch_size), tokens=training.micro_batch_tokens)
    return run, course, exchanging(network) if ranks.count > 1 else None


def _introduce(settled: Settled, effective: Mapping[str, Any], ranks: "Ranks") -> None:
    """The first lines of a run: what was chosen, and why; and what takes effect, in numbers."""
    print(f"train: {settled}", flush=True)
    if settled.unused:
        unused = ", ".join(settled.unused)
        print(f"train: not used by method {settled.training.method}: {unused}", file=sys.stderr, flush=True)
    print(
        "train: {method}, {optimizer}, {num_train_rows:,} examples, {num_epochs:g} epochs, {num_updates:,} updates of "
        "{global_batch_size}, learning rate {learning_rate:.3g} after {warmup_updates} updates of warm-up, {precision}, "
        "{num_parameters:,} parameters, {num_ranks} rank(s) on {device}".format(**effective, device=ranks.device.type),
        flush=True,
    )
