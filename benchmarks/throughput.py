"""How many samples a second does plain training compute, against the Hugging Face Trainer?

    python benchmarks/throughput.py --source GLUE_DIR [--quick]

Three sides train MiniLM on SST-2 with AdamW, each time in a process of its own, in turns: this project; the Trainer as
run_glue.py sets it up (padded to 128, fp32); and the Trainer at its best (padded to a batch's longest, batches of examples of
like length, fused AdamW, bf16 where the processor has it). A large batch is, for the Trainer, micro-batches of 32 accumulated.
Start-up is left out, and so is the first half of an epoch: what is timed is its second half, in which the Trainer's sampler
goes from its longest batches to its shortest as often. Prints a table; writes throughput.json and throughput.png.

Also says what share of the processor's matrix product our side reaches: the multiplications it really makes (FlopCounterMode),
over the fastest of matrix products of the model's own shapes.
"""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from measure import alone, bars, machine, save, spread
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from components import cli, parameters
from components.artifacts.names import TOKENIZER
from components.errors import UserError
from components.modeling.load import load_model, load_tokenizer
from components.modeling.packed import is_packed
from components.modeling.prepare import prepare_model
from components.tasks.table import TASKS
from components.tokenize.stage import tokenize
from components.train.stage import train
from components.training.budget import Progress
from components.training.data import micro_batches, read_split
from components.training.memory import CPU_TOKENS
from components.training.methods import build_method
from components.training.objectives import Classification
from components.training.precision import choose_arithmetic
from components.training.selection import rows_of_update
from components.training.update import accumulate_gradients

OURS, DEFAULT, BEST = "ours", "Trainer, as run_glue.py", "Trainer, at its best"
MICRO_BATCH = 32
PADDED_LENGTH = 128


def throughput(
    *,
    source: Path,
    output_dir: Path = Path("build/throughput"),
    model: str = "minilm",
    batch_sizes: list[int] = [32, 1024],
    num_examples: int = 2048,
    rounds: int = 5,
    quick: bool = False,
) -> None:
    """Measure training's samples a second against the Hugging Face Trainer.

    Args:
        source: Folder with sst2/train.parquet in the Hugging Face schema.
        output_dir: Folder for the results.
        model: As in components.train.
        batch_sizes: Examples per update.
        num_examples: Examples of a measurement, at least one update, after as many that do not count; an eighth of them, and
            none before, where all are padded to 128.
        rounds: Times that each side is measured.
        quick: 256 examples, batches of 32, and 2 rounds: a minute or two.
    """
    if quick:
        batch_sizes, num_examples, rounds = [MICRO_BATCH], 256, 2
    if bad := [size for size in batch_sizes if size < 1 or (size > MICRO_BATCH and size % MICRO_BATCH)]:
        raise UserError(f"batch_sizes has {bad[0]}: give up to {MICRO_BATCH}, or a multiple of it")
    if min(num_examples, rounds) < 1:
        raise UserError("num_examples and rounds must be 1 or more")
    with tempfile.TemporaryDirectory() as folder:
        data_dir = _tokenized(source, Path(folder), model, 2 * max(num_examples, *batch_sizes))
        _compare(data_dir, output_dir, model, batch_sizes, num_examples, rounds)


def _compare(data_dir: Path, output_dir: Path, model: str, batch_sizes: list[int], num_examples: int, rounds: int) -> None:
    sides: dict[str, Callable[..., list[float]]] = {
        OURS: _ours,
        DEFAULT: partial(_trainer, False),
        BEST: partial(_trainer, True),
    }
    measured: dict[int, dict[str, list[float]]] = {size: {side: [] for side in sides} for size in batch_sizes}
    with tqdm(total=rounds * len(sides) * len(batch_sizes), desc="throughput", unit=" runs", disable=None) as bar:
        for number in range(rounds):
            for size in batch_sizes:
                for side, run in sides.items():
                    timed = max(1, (num_examples // 8 if side == DEFAULT else num_examples) // size)
                    before = 0 if side == DEFAULT else timed
                    seconds = [0.0, *alone(run, data_dir, model, size, before + timed, number)]
                    measured[size][side].append(timed * size / (seconds[before + timed] - seconds[before]))
                    bar.update()

    peak, flops = alone(matrix_flops, model), {size: alone(sample_flops, data_dir, model, size) for size in batch_sizes}
    results: dict[str, Any] = {}
    print(f"{model}, SST-2, plain, AdamW, {rounds} rounds; {machine()}")
    print(f"{'samples/s':26} {'batch':>5} {'median':>8} {'range':>15} {'ours / it':>10}")
    for size, by_side in measured.items():
        ours = spread(by_side[OURS])["median"]
        results[str(size)] = {side: spread(values) for side, values in by_side.items()}
        for side, result in results[str(size)].items():
            result["ours_over_it"] = ours / result["median"]
            extent = f"{result['low']:.1f}-{result['high']:.1f}"
            print(f"{side:26} {size:5} {result['median']:8.1f} {extent:>15} {result['ours_over_it']:10.2f}")
        share = ours * flops[size] / peak
        results[str(size)][OURS] |= {"flops_per_sample": flops[size], "share_of_matrix_product": share}
        print(
            f"batch {size}: {ours * flops[size] / 1e9:.0f} of {peak / 1e9:.0f} GFLOP/s, {share:.0%} of the matrix product alone"
        )
    save(output_dir, "throughput", {"model": model, "rounds": rounds, "peak_flops": peak, "batch_sizes": results})
    groups = {f"batch {size}": result for size, result in results.items()}
    bars(output_dir / "throughput.png", f"{model}, SST-2, plain; {machine()}", "samples/s", groups)


def _tokenized(source: Path, folder: Path, model: str, num_rows: int) -> Path:
    """The first rows of SST-2's training split, tokenized."""
    path = source / "sst2" / "train.parquet"
    if not path.is_file():
        raise UserError(f"no {path}: give a folder with SST-2 in the Hugging Face schema")
    raw = folder / "raw" / "sst2"
    raw.mkdir(parents=True)
    pq.write_table(pq.read_table(path).slice(0, num_rows), raw / "train.parquet")
    with _quiet():
        tokenize(task="sst2", source=str(raw.parent), model=model, output_dir=folder / "data")
    return folder / "data"


def _ours(data_dir: Path, model: str, batch_size: int, num_updates: int, seed: int) -> list[float]:
    """Seconds from the first update's begin to the end of each."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        train(
            data_dir=data_dir,
            model=model,
            output_dir=Path(folder) / "model",
            method="plain",
            optimizer="adamw",
            learning_rate=1e-5,
            num_updates=num_updates,
            global_batch_size=batch_size,
            log_interval=1,
            seed=seed,
        )
        lines = (Path(folder) / "model" / "timings.jsonl").read_text().splitlines()
    return [json.loads(line)["seconds"] for line in lines]


def _trainer(best: bool, data_dir: Path, model: str, batch_size: int, num_updates: int, seed: int) -> list[float]:
    from datasets import Dataset, disable_progress_bars
    from transformers import (
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    class Clock(TrainerCallback):
        seconds: list[float]

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started, self.seconds = time.perf_counter(), []

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds.append(time.perf_counter() - self.started)

    disable_progress_bars()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(str(data_dir / TOKENIZER))
    network = load_model(model, TASKS["sst2"], len(tokenizer), parameters.dropout)
    data = Dataset.from_parquet(str(data_dir / "train.parquet")).remove_columns("idx")
    if not best:
        data = data.map(lambda rows: tokenizer.pad(rows, padding="max_length", max_length=PADDED_LENGTH), batched=True)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, _quiet():
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=min(batch_size, MICRO_BATCH),
            gradient_accumulation_steps=max(1, batch_size // MICRO_BATCH),
            max_steps=num_updates,
            learning_rate=1e-5,
            seed=seed,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=device.type == "cuda",
            use_cpu=device.type == "cpu",
            bf16=best and choose_arithmetic("auto", device).name == "bf16",
            train_sampling_strategy="group_by_length" if best else "random",
        )
        collator = DataCollatorWithPadding(tokenizer)
        Trainer(model=network, args=arguments, train_dataset=data, data_collator=collator, callbacks=[clock]).train()
    return clock.seconds


@contextlib.contextmanager
def _quiet() -> Any:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def sample_flops(data_dir: Path, model: str, batch_size: int) -> float:
    """Floating-point operations of matrix products that an update of ours makes, by sample."""
    rows = read_split(data_dir, "train")
    network: Any = load_model(model, TASKS["sst2"], len(load_tokenizer(model)), parameters.dropout)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prepare_model(network, device)
    updates = [rows_of_update(update, len(rows), batch_size, 0) for update in range(max(1, 1024 // batch_size))]
    pieces = [piece for each in updates for piece in micro_batches(each, rows.lengths[each], CPU_TOKENS, 0, 1)]
    batches = [rows.batch(piece, 0, device, is_packed(network)) for piece in pieces]
    plain, arithmetic = build_method("plain", {}), choose_arithmetic("auto", device)
    with FlopCounterMode(display=False) as counter:
        first = Progress(update=0, share=0.0, seed=0)
        for _ in accumulate_gradients(network, plain, Classification(), batches, len(batches), first, 1.0, arithmetic):
            pass
    return counter.get_total_flops() / sum(map(len, updates))


def matrix_flops(model: str) -> float:
    """Operations a second of the fastest of the matrix products that the model's layers make, on their own."""
    network: Any = load_model(model, TASKS["sst2"], len(load_tokenizer(model)), 0.0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if choose_arithmetic("auto", device).name == "bf16" else torch.float32
    shapes = {tuple(weight.shape) for name, weight in network.named_parameters() if weight.ndim == 2 and "embed" not in name}
    fastest = 0.0
    for outputs, inputs in shapes:
        left, right = (
            torch.randn(CPU_TOKENS, inputs, device=device, dtype=dtype),
            torch.randn(inputs, outputs, device=device, dtype=dtype),
        )
        for _ in range(50):
            started = time.perf_counter()
            torch.mm(left, right)
            if device.type == "cuda":
                torch.cuda.synchronize()
            fastest = max(fastest, 2 * CPU_TOKENS * inputs * outputs / (time.perf_counter() - started))
    return fastest


if __name__ == "__main__":
    cli.run(throughput, "python benchmarks/throughput.py")
