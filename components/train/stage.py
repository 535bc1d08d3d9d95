"""The training loop, top to bottom: data, model, method, optimizer, updates, save. One program for 1 or N ranks."""

import contextlib
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from components import parameters
from components.artifacts import Artifact, Manifest, read_manifest
from components.errors import UserError
from components.models import load_model, load_tokenizer
from components.parameters import Optimizer, Precision, documented
from components.tasks import Task
from components.tokenize.stage import TOKENIZER, tokenizer_digest
from components.train.data import micro_batches, num_examples, read_split, rows_of_update, updates_per_epoch
from components.train.log import MetricsLog
from components.train.methods import Method, Progress
from components.train.methods.plain import Plain
from components.train.methods.scala import Scala
from components.train.optimizers import build_optimizer, default_learning_rate, schedule
from components.train.ranks import has_bf16, join_ranks, mix


@documented
def train(
    *,
    data_dir: Path,
    model: str,
    output_dir: Path,
    method: parameters.Method = parameters.method,
    optimizer: Optimizer = parameters.optimizer,
    learning_rate: float = parameters.learning_rate,
    warmup_ratio: float = parameters.warmup_ratio,
    weight_decay: float = parameters.weight_decay,
    max_grad_norm: float = parameters.max_grad_norm,
    dropout: float = parameters.dropout,
    num_epochs: float = parameters.num_epochs,
    global_batch_size: int = parameters.global_batch_size,
    per_device_batch_size: int = parameters.per_device_batch_size,
    precision: Precision = parameters.precision,
    seed: int = parameters.seed,
    log_interval: int = parameters.log_interval,
    perturbation_start: float = parameters.perturbation_start,
    perturbation_init_std: float = parameters.perturbation_init_std,
    perturbation_step_size: float = parameters.perturbation_step_size,
    perturbation_radius: float = parameters.perturbation_radius,
    perturbation_weight: float = parameters.perturbation_weight,
) -> Manifest:
    """Fine-tune a pre-trained transformer on tokenized data; on many ranks under torchrun.

    Writes model.safetensors, config.json with the label names, the tokenizer, metrics.jsonl (a line an update), task.json and
    manifest.json.
    """
    arguments = {name: value for name, value in locals().items() if name not in ("data_dir", "output_dir")}
    _check(num_epochs, global_batch_size, per_device_batch_size, log_interval, warmup_ratio, dropout, max_grad_norm, seed)
    the_method = build_method(
        method,
        perturbation_start,
        perturbation_init_std,
        perturbation_step_size,
        perturbation_radius,
        perturbation_weight,
    )
    data = read_manifest(data_dir, "tokenize")
    artifact = Artifact(output_dir, "train", arguments, {"data": data["digest"]})
    if manifest := artifact.cached():
        return manifest
    if not (data_dir / "train.parquet").is_file():
        raise UserError(f"{data_dir} has no train split: nothing to train on")

    with join_ranks() as ranks:
        task = Task.read(data_dir)
        split = read_split(data_dir / "train.parquet")
        tokenizer = load_tokenizer(str(data_dir / TOKENIZER))
        if tokenizer_digest(load_tokenizer(model)) != tokenizer_digest(tokenizer):
            raise UserError(f"{data_dir} was tokenized for {data['parameters']['model']}, whose tokens {model} does not share")

        torch.manual_seed(seed)  # the new head
        bare = load_model(model, task, len(tokenizer), dropout)
        bare.to(ranks.device).train()  # type: ignore[arg-type]
        # Buffers (position ids) never change: broadcasting them would write between the forwards of one update.
        wrapped: nn.Module = bare
        if ranks.count > 1:
            wrapped = DistributedDataParallel(bare, forward_sync_buffers=False, gradient_as_bucket_view=True)

        batch_size = global_batch_size or default_batch_size(len(split))
        per_epoch = updates_per_epoch(len(split), batch_size)
        num_updates = math.ceil(num_epochs * per_epoch)
        peak = learning_rate or default_learning_rate(optimizer, batch_size)
        the_optimizer = build_optimizer(optimizer, bare, peak, weight_decay)
        bf16 = precision == "bf16" or (precision == "auto" and has_bf16(ranks.device))
        if ranks.rank == 0:
            print(
                f"train: {method}, {optimizer}, {len(split)} examples, {num_updates} updates of {batch_size}, "
                f"learning rate {peak:.3g}, {'bf16' if bf16 else 'fp32'}, {ranks.count} rank(s) on {ranks.device.type}",
                flush=True,
            )

        with artifact.building() if ranks.rank == 0 else contextlib.nullcontext(None) as folder:
            total = num_examples(num_updates, len(split), batch_size)
            log = MetricsLog(folder, ("loss", *the_method.part_names), ranks, total, log_interval)
            for update in range(num_updates):
                rows = rows_of_update(update, len(split), batch_size, seed)
                mine = micro_batches(rows, split.lengths[rows], per_device_batch_size, ranks.rank, ranks.count)
                # DDP averages over the ranks; the loss is the mean over the global batch, however its rows are shared out.
                weight = ranks.count / len(rows) if mine else 0.0
                mine = mine or [rows[:1]]  # a rank without rows still takes part in the all-reduce
                for group in the_optimizer.param_groups:
                    group["lr"] = peak * schedule(update, num_updates, warmup_ratio)
                torch.manual_seed(mix(seed, update, ranks.rank))  # dropout: the same whenever this update is computed
                for number, piece in enumerate(mine):
                    batch = split.batch(piece, tokenizer.pad_token_id, ranks.device)
                    last = number == len(mine) - 1
                    # no_sync must surround the forward: DDP decides there whether this backward all-reduces.
                    with contextlib.nullcontext() if last or ranks.count == 1 else wrapped.no_sync():  # type: ignore[operator]
                        with torch.autocast(ranks.device.type, torch.bfloat16, enabled=bf16):
                            loss = the_method.loss(wrapped, batch, Progress(update, num_updates, seed))
                        (loss.total * weight).backward()
                    log.add((loss.total, *loss.parts.values()), weight / ranks.count)
                norm = nn.utils.clip_grad_norm_(bare.parameters(), max_grad_norm or math.inf)
                the_optimizer.step()
                the_optimizer.zero_grad()
                epoch, rate = round((update + 1) / per_epoch, 4), the_optimizer.param_groups[0]["lr"]
                log.end_update(update + 1, len(rows), norm, epoch=epoch, learning_rate=rate)
            log.close()
            if folder:
                bare.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
                task.write(folder)
        return artifact.manifest() if ranks.rank == 0 else {}


def build_method(
    method: parameters.Method,
    perturbation_start: float,
    perturbation_init_std: float,
    perturbation_step_size: float,
    perturbation_radius: float,
    perturbation_weight: float,
) -> Method:
    if method == "plain":
        return Plain()
    return Scala(
        perturbation_start=perturbation_start,
        perturbation_init_std=perturbation_init_std,
        perturbation_step_size=perturbation_step_size,
        perturbation_radius=perturbation_radius,
        perturbation_weight=perturbation_weight,
    )


def default_batch_size(num_rows: int) -> int:
    """The largest power of two from 32 to 1024 that leaves 60 updates an epoch."""
    return max(size for size in (32, 64, 128, 256, 512, 1024) if size == 32 or num_rows >= 60 * size)


def _check(
    num_epochs: float,
    global_batch_size: int,
    per_device_batch_size: int,
    log_interval: int,
    warmup_ratio: float,
    dropout: float,
    max_grad_norm: float,
    seed: int,
) -> None:
    for what, good, hint in (
        (f"num_epochs is {num_epochs}", num_epochs > 0, "above 0"),
        (f"global_batch_size is {global_batch_size}", global_batch_size >= 0, "1 or more, or 0 to choose it"),
        (f"per_device_batch_size is {per_device_batch_size}", per_device_batch_size > 0, "1 or more"),
        (f"log_interval is {log_interval}", log_interval > 0, "1 or more"),
        (f"warmup_ratio is {warmup_ratio}", 0 <= warmup_ratio <= 1, "0 to 1"),
        (f"dropout is {dropout}", 0 <= dropout < 1, "0 or more, below 1"),
        (f"max_grad_norm is {max_grad_norm}", max_grad_norm >= 0, "0 or more"),
        (f"seed is {seed}", seed >= 0, "0 or more"),
    ):
        if not good:
            raise UserError(f"{what}: give {hint}")
