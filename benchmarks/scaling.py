"""What do a second rank and more rows cost?

    python benchmarks/scaling.py --source GLUE_DIR [--quick]

Ranks: samples a second of plain training with AdamW at a large batch, on one rank and on two, a thread each, in turns; beside
them what two processes of bare matrix products gain on this machine, where two threads may share a core. Also how evenly the
ranks' tokens are shared out, and what share of a micro-batch's places is padding.

Rows: seconds and peak memory of the tokenizing stage and of reading its Parquet into tensors, for SST-2's rows repeated to
10,000, 100,000 and 1,000,000, each in a process of its own. Prints tables; writes scaling.json and scaling.png.
"""

import contextlib
import io
import json
import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from measure import alone, bars, machine, save, spread
from tqdm import tqdm

from components import cli
from components.errors import UserError
from components.launch.torchrun import launched
from components.tokenize.stage import tokenize
from components.training.data import Split, micro_batches, read_split
from components.training.memory import CPU_TOKENS
from components.training.selection import rows_of_update

RANKS = (1, 2)


def scaling(
    *,
    source: Path,
    output_dir: Path = Path("build/scaling"),
    model: str = "minilm",
    batch_size: int = 1024,
    num_updates: int = 4,
    rounds: int = 3,
    num_rows: list[int] = [10_000, 100_000, 1_000_000],
    quick: bool = False,
) -> None:
    """Measure what a second rank gains, and what more rows cost.

    Args:
        source: Folder with sst2/train.parquet in the Hugging Face schema.
        output_dir: Folder for the results.
        model: As in components.train.
        batch_size: Examples per update.
        num_updates: Updates of a measurement, and one before them that does not count.
        rounds: Times that each number of ranks is measured.
        num_rows: Sizes of the sets that are tokenized and read.
        quick: Batches of 64, 2 updates, 1 round; 1,000 and 5,000 rows.
    """
    if quick:
        batch_size, num_updates, rounds, num_rows = 64, 2, 1, [1000, 5000]
    if min(batch_size, num_updates, rounds, *num_rows) < 1:
        raise UserError("batch_size, num_updates, rounds and num_rows must be 1 or more")
    path = source / "sst2" / "train.parquet"
    if not path.is_file():
        raise UserError(f"no {path}: give a folder with SST-2 in the Hugging Face schema")
    print(f"{model}, SST-2; {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        by_rows = {count: _by_rows(path, Path(folder) / str(count), count, model) for count in num_rows}
        data_dir = Path(folder) / str(max(num_rows)) / "data"
        by_ranks, gain = _by_ranks(data_dir, model, batch_size, num_updates, rounds)
        padding, imbalance = _balance(read_split(data_dir, "train"), batch_size)
    results = {"model": model, "batch_size": batch_size, "rounds": rounds, "ranks": by_ranks, "matrix_product_gain": gain}
    save(output_dir, "scaling", {**results, "padding": padding, "imbalance": imbalance, "rows": by_rows})
    bars(output_dir / "scaling.png", f"{model}, SST-2, batch {batch_size}, plain; {machine()}", "samples/s", {"": by_ranks})


def _by_rows(path: Path, folder: Path, count: int, model: str) -> dict[str, float]:
    """SST-2's rows, repeated, tokenized to folder/data and read again."""
    raw = folder / "sst2" / "train.parquet"
    raw.parent.mkdir(parents=True)
    table = pq.read_table(path)
    with pq.ParquetWriter(raw, table.schema) as writer:
        for start in range(0, count, len(table)):
            writer.write_table(table.slice(0, count - start))
    seconds, memory = alone(_tokenized, folder, model)
    read_seconds, read_memory = alone(_read, folder / "data")
    print(
        f"{count:9,} rows: tokenized in {seconds:6.1f} s, at most {memory:5.0f} MiB; "
        f"read in {read_seconds:5.2f} s, at most {read_memory:5.0f} MiB",
        flush=True,
    )
    return {"seconds": seconds, "peak_mib": memory, "read_seconds": read_seconds, "read_peak_mib": read_memory}


def _tokenized(folder: Path, model: str) -> tuple[float, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        manifest = tokenize(task="sst2", source=str(folder), model=model, output_dir=folder / "data")
    return manifest["seconds"], _peak()


def _read(data_dir: Path) -> tuple[float, float]:
    started = time.perf_counter()
    read_split(data_dir, "train")
    return time.perf_counter() - started, _peak()


def _peak() -> float:
    """MiB that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _by_ranks(
    data_dir: Path, model: str, batch_size: int, num_updates: int, rounds: int
) -> tuple[dict[str, dict[str, float]], float]:
    rates: dict[int, list[float]] = {count: [] for count in RANKS}
    products: dict[int, list[float]] = {count: [] for count in RANKS}
    os.environ["OMP_NUM_THREADS"] = "1"
    with tqdm(total=rounds * len(RANKS), desc="ranks", unit=" runs", disable=None) as bar:
        for _ in range(rounds):
            for count in RANKS:
                with ProcessPoolExecutor(count, get_context("spawn")) as pool:
                    products[count].append(sum(pool.map(_products, range(count))))
                rates[count].append(_samples_a_second(data_dir, model, batch_size, num_updates, count))
                bar.update()
    gain = spread([two / one for one, two in zip(products[1], products[2], strict=True)])["median"]
    results = {f"{count} rank(s) x 1 thread": spread(values) for count, values in rates.items()}
    for name, result in results.items():
        print(f"{name}: {result['median']:.1f} samples/s ({result['low']:.1f}-{result['high']:.1f})")
    one, two = (result["median"] for result in results.values())
    print(f"two ranks gain {two / one:.2f}; two processes of matrix products alone gain {gain:.2f}")
    return results, gain


def _samples_a_second(data_dir: Path, model: str, batch_size: int, num_updates: int, num_ranks: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        arguments = {
            "data_dir": data_dir,
            "model": model,
            "output_dir": Path(folder) / "model",
            "method": "plain",
            "learning_rate": 1e-5,
            "num_updates": 1 + num_updates,
            "global_batch_size": batch_size,
            "log_interval": 1,
        }
        with launched("train", arguments, num_ranks) as wait:
            wait()
        lines = [json.loads(line) for line in (Path(folder) / "model" / "timings.jsonl").read_text().splitlines()]
    return num_updates * batch_size / float(lines[-1]["seconds"] - lines[0]["seconds"])


def _products(number: int) -> float:
    """Matrix products a second, of MiniLM's shapes, over some seconds."""
    torch.set_num_threads(1)
    left, right = torch.randn(CPU_TOKENS, 384), torch.randn(384, 1536)
    started, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < started + 3:
        torch.mm(left, right)
        count += 1
    return count / (now - started)


def _balance(rows: Split, batch_size: int) -> tuple[float, float]:
    """Share of padding among the places of an update's micro-batches, and how far two ranks' tokens are apart."""
    padding, imbalance = [], []
    for update in range(min(20, len(rows) // batch_size)):
        chosen = rows_of_update(update, len(rows), batch_size, 0)
        shares = [micro_batches(chosen, rows.lengths[chosen], CPU_TOKENS, rank, len(RANKS)) for rank in range(len(RANKS))]
        loads = [int(sum(rows.lengths[piece].sum() for piece in share)) for share in shares]
        whole = micro_batches(chosen, rows.lengths[chosen], CPU_TOKENS, 0, 1)
        places = sum(len(piece) * int(rows.lengths[piece].max()) for piece in whole)
        padding.append(1 - sum(loads) / places)
        imbalance.append(max(loads) / min(loads) - 1)
    worst: dict[str, Any] = {"padding": max(padding), "imbalance": max(imbalance)}
    print(f"batch {batch_size}: at most {worst['padding']:.1%} of places are padding, ranks {worst['imbalance']:.1%} apart")
    return worst["padding"], worst["imbalance"]


if __name__ == "__main__":
    cli.run(scaling, "python benchmarks/scaling.py")
