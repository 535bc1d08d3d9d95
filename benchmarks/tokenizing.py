"""How many rows a second are tokenized to Parquet, against datasets.map and against the tokenizer alone?

    python benchmarks/tokenizing.py --source GLUE_DIR [--quick]

Each side tokenizes SST-2's training split, each time in a process of its own, in turns: this project's stage, with checks and
digests; datasets.map in batches, on one process and on as many as there are cores, then to_parquet; and the tokenizer alone
(encode_batch_fast on all texts, whose encodings are thrown away), which is the limit. Each has tokenized some rows before:
imports and the loading of the tokenizer are left out. Prints a table; writes tokenizing.json and tokenizing.png.
"""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from measure import alone, bars, machine, save, spread
from tqdm import tqdm

from components import cli
from components.errors import UserError
from components.modeling.load import load_tokenizer
from components.tokenize.stage import tokenize

OURS, ONE, MANY, BARE = "ours", "datasets.map, one process", "datasets.map, all cores", "the tokenizer alone"
MAX_LENGTH = 128


def tokenizing(
    *,
    source: Path,
    output_dir: Path = Path("build/tokenizing"),
    model: str = "minilm",
    num_rows: int = 67_349,
    rounds: int = 5,
    quick: bool = False,
) -> None:
    """Measure tokenizing's rows a second against datasets.map.

    Args:
        source: Folder with sst2/train.parquet in the Hugging Face schema.
        output_dir: Folder for the results.
        model: As in components.tokenize.
        num_rows: Rows to tokenize; more than there are begin again from the first.
        rounds: Times that each side is measured.
        quick: 5,000 rows and 2 rounds.
    """
    if quick:
        num_rows, rounds = min(num_rows, 5000), 2
    if min(num_rows, rounds) < 1:
        raise UserError("num_rows and rounds must be 1 or more")
    path = source / "sst2" / "train.parquet"
    if not path.is_file():
        raise UserError(f"no {path}: give a folder with SST-2 in the Hugging Face schema")
    sides: dict[str, Callable[[Path, str], float]] = {
        OURS: _ours,
        ONE: partial(_map, 1),
        MANY: partial(_map, os.cpu_count() or 1),
        BARE: _bare,
    }
    rates: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder, tqdm(total=rounds * len(sides), unit=" runs", disable=None) as bar:
        table = pq.read_table(path)
        table = table.take([row % len(table) for row in range(num_rows)])
        few, all_rows = _written(table.slice(0, 1000), Path(folder) / "few"), _written(table, Path(folder) / "all")
        for _ in range(rounds):
            for side, run in sides.items():
                rates[side].append(num_rows / alone(_warmed, run, few, all_rows, model))
                bar.update()

    results = {side: spread(values) for side, values in rates.items()}
    print(f"{model}, SST-2, {num_rows} rows, {rounds} rounds; {machine()}")
    print(f"{'rows/s':28} {'median':>8} {'range':>15} {'ours / it':>10}")
    for side, result in results.items():
        result["ours_over_it"] = results[OURS]["median"] / result["median"]
        extent = f"{result['low']:.0f}-{result['high']:.0f}"
        print(f"{side:28} {result['median']:8.0f} {extent:>15} {result['ours_over_it']:10.2f}")
    save(output_dir, "tokenizing", {"model": model, "rows": num_rows, "rounds": rounds, "sides": results})
    bars(output_dir / "tokenizing.png", f"{model}, SST-2 to Parquet; {machine()}", "rows/s", {"": results})


def _written(table: pa.Table, folder: Path) -> Path:
    path = folder / "sst2" / "train.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
    return path


def _warmed(run: Callable[[Path, str], float], few: Path, all_rows: Path, model: str) -> float:
    run(few, model)
    return run(all_rows, model)


def _ours(raw: Path, model: str) -> float:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        source = str(raw.parents[1])
        manifest = tokenize(task="sst2", source=source, model=model, output_dir=Path(folder) / "data", max_length=MAX_LENGTH)
        return float(manifest["seconds"])


def _map(num_processes: int, raw: Path, model: str) -> float:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    tokenizer = load_tokenizer(model)
    with tempfile.TemporaryDirectory() as folder:
        data = Dataset.from_parquet(str(raw), cache_dir=folder)
        started = time.perf_counter()
        mapped = data.map(
            lambda rows: tokenizer(rows["sentence"], truncation=True, max_length=MAX_LENGTH),
            batched=True,
            remove_columns=["sentence"],
            num_proc=num_processes if num_processes > 1 else None,
        )
        mapped.to_parquet(Path(folder) / "train.parquet")
        return time.perf_counter() - started


def _bare(raw: Path, model: str) -> float:
    backend = load_tokenizer(model).backend_tokenizer  # type: ignore[attr-defined]
    backend.no_padding()
    backend.enable_truncation(MAX_LENGTH)
    texts = pq.read_table(raw)["sentence"].to_pylist()
    started = time.perf_counter()
    backend.encode_batch_fast(texts)
    return time.perf_counter() - started


if __name__ == "__main__":
    cli.run(tokenizing, "python benchmarks/tokenizing.py")
