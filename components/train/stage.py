"""The training loop, top to bottom: data, model, method, optimizer, updates, save. One program for 1 or N ranks."""

import contextlib
import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from components import parameters
from components.artifacts.folders import Artifact, Manifest, origin, read_manifest
from components.artifacts.names import TOKENIZER, TRAINING_LOG
from components.artifacts.splits import find_split
from components.errors import TryAgainError, UserError
from components.modeling.load import files_digest, load_model, load_tokenizer, model_files, model_origin, tokenizer_digest
from components.parameters import (
    Divergence,
    Optimizer,
    PerturbationDirection,
    PerturbationDropout,
    PerturbationNorm,
    PerturbationScope,
    Precision,
    Scaling,
    check_choice,
    documented,
)
from components.tasks.table import Task


@documented
def train(
    *,
    data_dir: Path,
    model: str,
    output_dir: Path,
    method: parameters.Method = parameters.method,
    optimizer: Optimizer = parameters.optimizer,
    learning_rate: float = parameters.learning_rate,
    base_batch_size: int = parameters.base_batch_size,
    learning_rate_scaling: Scaling = parameters.learning_rate_scaling,
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
    precision: Precision = parameters.precision,
    compile: bool = parameters.compile,
    seed: int = parameters.seed,
    log_interval: int = parameters.log_interval,
    checkpoint_dir: Path | None = parameters.checkpoint_dir,
    checkpoint_minutes: float = parameters.checkpoint_minutes,
    perturbation_start: float = parameters.perturbation_start,
    perturbation_steps: int = parameters.perturbation_steps,
    perturbation_init_std: float = parameters.perturbation_init_std,
    perturbation_init_norm: float = parameters.perturbation_init_norm,
    perturbation_step_size: float = parameters.perturbation_step_size,
    perturbation_radius: float = parameters.perturbation_radius,
    perturbation_norm: PerturbationNorm = parameters.perturbation_norm,
    perturbation_scope: PerturbationScope = parameters.perturbation_scope,
    perturbation_divergence: Divergence = parameters.perturbation_divergence,
    perturbation_weight: float = parameters.perturbation_weight,
    perturbation_direction: PerturbationDirection = parameters.perturbation_direction,
    perturbation_dropout: PerturbationDropout = parameters.perturbation_dropout,
    perturbation_interval: int = parameters.perturbation_interval,
    perturbation_fraction: float = parameters.perturbation_fraction,
) -> Manifest:
    """Fine-tune a pre-trained transformer on tokenized data; on many ranks under torchrun.

    Writes model.safetensors, config.json with the label names, the tokenizer, metrics.jsonl (a line an update), task.json and
    manifest.json. Stopped or killed and called again, it goes on from its last checkpoint and writes what it would have.
    """
    arguments = dict(locals())
    _check(arguments)
    artifact = plan(arguments)
    if manifest := artifact.cached():
        return manifest
    if not find_split(data_dir, "train"):
        raise UserError(f"{data_dir} has no train split: nothing to train on")

    # Seconds to import: `--help`, the checks above and what is cached need not wait.
    import torch
    from torch import Tensor, nn
    from torch.nn.parallel import DistributedDataParallel

    from components.modeling.compiled import compile_layers
    from components.modeling.packing import is_packed
    from components.training import checkpoint
    from components.training.build import build_method, prepare_model
    from components.training.data import Batch, micro_batches, num_examples, read_split, rows_of_update, updates_per_epoch
    from components.training.interrupts import ended_by, noted_signals, noticed_losses
    from components.training.log import MetricsLog, say
    from components.training.memory import choose_tokens, within_memory
    from components.training.methods import Progress
    from components.training.optimizers import build_optimizer, peak_learning_rate, schedule, trust_ratios
    from components.training.precision import choose_arithmetic
    from components.training.ranks import join_ranks, mix
    from components.training.update import accumulate_gradients

    the_method = build_method(method, arguments)
    with join_ranks() as ranks:
        task = Task.read(data_dir)
        split = read_split(data_dir, "train")
        tokenizer = load_tokenizer(str(data_dir / TOKENIZER))
        if tokenizer_digest(load_tokenizer(model)) != tokenizer_digest(tokenizer):
            meant = read_manifest(data_dir, "tokenize")["parameters"]["model"]
            raise UserError(f"{data_dir} was tokenized for {meant}, whose tokens {model} does not share")

        torch.manual_seed(seed)  # the new head
        bare = load_model(model, task, len(tokenizer), dropout)
        arithmetic = choose_arithmetic(precision, ranks.device)
        if arithmetic.name == "fp64":
            bare.double()
        prepare_model(bare, ranks.device)
        if compile:
            compile_layers(bare)
        # Buffers (position ids) never change: broadcasting them would write between the forwards of one update.
        wrapped: nn.Module = bare
        if ranks.count > 1:
            wrapped = DistributedDataParallel(bare, forward_sync_buffers=False, gradient_as_bucket_view=True)

        batch_size = global_batch_size or default_batch_size(len(split))
        per_epoch = updates_per_epoch(len(split), batch_size)
        num_updates = num_updates or math.ceil(num_epochs * per_epoch)
        num_warmup = warmup_updates or round(warmup_epochs * per_epoch) or round(warmup_ratio * num_updates)
        if num_warmup > num_updates:
            raise UserError(f"the warm-up takes {num_warmup} updates, the whole run has {num_updates}: shorten the warm-up")
        peak = peak_learning_rate(optimizer, learning_rate, batch_size, base_batch_size, learning_rate_scaling)
        the_optimizer = build_optimizer(optimizer, bare, peak, weight_decay)
        if ranks.rank == 0:
            print(
                f"train: {method}, {optimizer}, {len(split)} examples, {num_updates} updates of {batch_size}, "
                f"learning rate {peak:.3g}, {arithmetic.name}, {ranks.count} rank(s) on {ranks.device.type}",
                flush=True,
            )
        checkpoints = None
        if checkpoint_minutes and ranks.rank == 0:
            checkpoints = checkpoint_dir or checkpoint.default_folder(artifact)
        state = checkpoint.resume(checkpoints, artifact.identity, ranks, bare, the_optimizer, arithmetic.scaler)
        if state and ranks.rank == 0:
            print(f"train: goes on at update {state.update} of {num_updates} (checkpoint of {state.saved})", flush=True)
        done = saved = state.update if state else 0

        with (
            noted_signals() as noted,
            checkpoint.kept_until_done(checkpoints),
            artifact.building() if ranks.rank == 0 else contextlib.nullcontext(None) as folder,
        ):
            total = num_examples(num_updates, len(split), batch_size)
            may_skip = arithmetic.scaler.is_enabled()
            log = MetricsLog(folder, method, the_method.part_names, ranks, total, log_interval, may_skip, noted)
            if state:
                log.go_on(state.metrics, state.numbers["seconds"])

            def batch(rows: Tensor) -> Batch:
                # In the midst of an update, before its all-reduce. Ranks on GPUs finish it: NCCL does not miss one that left.
                if noted() and log.is_complete and (ranks.count == 1 or ranks.device.type == "cpu"):
                    raise ended_by(noted())
                return split.batch(rows, tokenizer.pad_token_id, ranks.device, is_packed(bare))

            def compute(update: int, rows: Tensor, tokens: int) -> None:
                """Add the update's gradient to param.grad."""
                mine = micro_batches(rows, split.lengths[rows], tokens, ranks.rank, ranks.count)
                # DDP averages over the ranks; the loss is the mean over the global batch, however its rows are shared out.
                weight = ranks.count / len(rows) if mine else 0.0
                mine = mine or [rows[:1]]  # a rank without rows still takes part in the all-reduce
                torch.manual_seed(mix(seed, update, ranks.rank))  # dropout: the same whenever this update is computed
                progress = Progress(update, num_updates, seed)
                batches = map(batch, mine)
                with noticed_losses(noted):
                    for loss in accumulate_gradients(wrapped, the_method, batches, len(mine), progress, weight, arithmetic):
                        log.add(loss, weight / ranks.count)

            def compute_longest(tokens: int) -> None:
                rows = by_length[: max(1, int((split.lengths[by_length].cumsum(0) <= tokens).sum()))]
                every = (Progress(update, num_updates, seed) for update in range(num_updates))
                costliest = max(every, key=lambda progress: the_method.passes(progress).relative)
                for _ in accumulate_gradients(bare, the_method, [batch(rows)], 1, costliest, 0.0, arithmetic):
                    pass
                forget()

            def forget() -> None:
                the_optimizer.zero_grad(set_to_none=False)  # fresh memory costs more than zeros
                log.forget_update()

            def save() -> None:
                log.flush()
                tensors, numbers = checkpoint.capture(bare, the_optimizer, arithmetic.scaler)
                numbers |= {"seconds": log.seconds, "tokens": {ranks.device.type: tokens}}
                lines = (folder / TRAINING_LOG).read_text() if folder else ""
                if checkpoints:
                    checkpoint.save(checkpoints, artifact.identity, checkpoint.State(done, tensors, numbers, lines))

            by_length = split.lengths.argsort(descending=True, stable=True)
            longest = int(split.lengths.max())
            tokens = (state and state.numbers["tokens"].get(ranks.device.type)) or micro_batch_tokens
            saved_at, ending = time.monotonic(), None
            try:
                tokens = tokens or choose_tokens(ranks.device, compute_longest, batch_size // ranks.count * longest)
                if done and ranks.count > 2:
                    # DDP lays out its buckets after the first gradient it sees, and a sum's order depends on where it lies.
                    first = rows_of_update(0, len(split), batch_size, seed)
                    tokens = within_memory(tokens, longest, partial(compute, 0, first), forget)
                    forget()
                for update in range(done, num_updates):
                    rows = rows_of_update(update, len(split), batch_size, seed)
                    for group in the_optimizer.param_groups:
                        group["lr"] = peak * schedule(update, num_updates, num_warmup)
                    tokens = within_memory(tokens, longest, partial(compute, update, rows), forget)
                    arithmetic.scaler.unscale_(the_optimizer)
                    norm = nn.utils.clip_grad_norm_(bare.parameters(), max_grad_norm or math.inf)
                    arithmetic.scaler.step(the_optimizer)
                    arithmetic.scaler.update()
                    done = update + 1
                    epoch, rate = round(done / per_epoch, 4), the_optimizer.param_groups[0]["lr"]
                    scalars = {"gradient_norm": norm, **trust_ratios(the_optimizer)}
                    with noticed_losses(noted):
                        signal = log.end_update(done, len(rows), scalars, epoch=epoch, learning_rate=rate)
                    the_optimizer.zero_grad(set_to_none=False)
                    if checkpoints and log.is_complete and time.monotonic() - saved_at > 60 * checkpoint_minutes:
                        save()
                        saved, saved_at = done, time.monotonic()
                    if signal:
                        raise ended_by(signal)
            except (SystemExit, KeyboardInterrupt, TryAgainError) as error:
                ending = type(error)(*error.args)  # without the frames that hold DDP
            # DDP must go before the process group: what of it were left would hold the GIL while it waits for gloo's threads,
            # one of which may be waiting for the GIL.
            wrapped = bare
            if ending and checkpoints and log.is_complete and done > saved:
                save()
            log.close()
            if ending:
                if folder:
                    say(f"train: stopped after update {done} of {num_updates}")
                raise ending
            if folder:
                bare.float().save_pretrained(folder)
                tokenizer.save_pretrained(folder)
                task.write(folder)
        return artifact.manifest() if ranks.rank == 0 else {}


def plan(arguments: Mapping[str, Any]) -> Artifact:
    """What `train` will write with these arguments; nothing slow is imported to say so."""
    data = read_manifest(Path(arguments["data_dir"]), "tokenize")
    others = ("data_dir", "output_dir", "checkpoint_dir", "checkpoint_minutes")  # they decide nothing of the content
    parameters = {name: value for name, value in arguments.items() if name not in others}
    files = model_files(arguments["model"])
    inputs = {"data": data["digest"], "model": files_digest(arguments["model"], files)}
    origins = {"data": origin(Path(arguments["data_dir"]), data), "model": model_origin(arguments["model"], files)}
    return Artifact(Path(arguments["output_dir"]), "train", parameters, inputs, origins)


def default_batch_size(num_rows: int) -> int:
    """The largest power of two from 32 to 1024 that leaves 60 updates an epoch."""
    return max(size for size in (32, 64, 128, 256, 512, 1024) if size == 32 or num_rows >= 60 * size)


def _check(arguments: dict[str, Any]) -> None:
    choices = {"method": parameters.Method, "optimizer": Optimizer, "precision": Precision, "learning_rate_scaling": Scaling}
    for name, values in choices.items():
        check_choice(name, arguments[name], values)
    at_least_one = "1 or more"
    for name, good, hint in (
        ("num_epochs", lambda value: value > 0, "above 0"),
        ("num_updates", lambda value: value >= 0, "1 or more, or 0 to train for num_epochs"),
        ("global_batch_size", lambda value: value >= 0, "1 or more, or 0 to choose it"),
        ("base_batch_size", lambda value: value >= 0, "1 or more, or 0 for global_batch_size"),
        ("micro_batch_tokens", lambda value: value >= 0, "1 or more, or 0 to choose it"),
        ("log_interval", lambda value: value > 0, at_least_one),
        ("checkpoint_minutes", lambda value: value >= 0, "0 or more"),
        ("warmup_ratio", lambda value: 0 <= value <= 1, "0 to 1"),
        ("warmup_updates", lambda value: value >= 0, "0 or more"),
        ("warmup_epochs", lambda value: value >= 0, "0 or more"),
        ("dropout", lambda value: 0 <= value < 1, "0 or more, below 1"),
        ("max_grad_norm", lambda value: value >= 0, "0 or more"),
        ("seed", lambda value: value >= 0, "0 or more"),
    ):
        if not good(arguments[name]):
            raise UserError(f"{name} is {arguments[name]}: give {hint}")
