"""Large batches and adversarial noise against small batches: what does each arm score, and what does that cost?

    python benchmarks/adaptation.py --source GLUE_DIR [--quick]

Every arm trains the same model on the same rows for the same number of epochs, or for a rival's reference time, with its
learning rate decayed to exactly zero at its own end, and is scored once, at that end (No Train No Gain, arXiv 2307.06440:
final models only, tuned baselines, equal reference time). Each tuned arm first tries the same number of learning rates with
the first seed (one, its double, then on upwards or downwards as the scores say), then the best of them runs with the other
seeds; a control takes the learning rate of the arm that it is a control of.

A finished run is a JSON file in OUTPUT_DIR/runs and is not run again: stop it when you like, and start the command twice to
share the work between two processes. Prints a table; writes adaptation-TASK.json and adaptation-TASK.png. Wall seconds are of
whatever machine a run had to itself or not; reference seconds (reference.py) are comparable.
"""

import fcntl
import json
import os
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pyarrow.parquet as pq
import torch
from arms import ARMS, BASE_BATCH_SIZE, FIRST_RATES, PROTOCOLS, QUICK, Protocol
from reference import measure_passes, measure_step, reference_seconds
from transformers import AutoModelForSequenceClassification

from components import cli, parameters
from components.errors import UserError
from components.evaluate.predict import predict
from components.modeling.load import load_model, load_tokenizer
from components.modeling.prepare import prepare_model
from components.tasks.metrics import measure, score
from components.tasks.table import TASKS
from components.tokenize.stage import tokenize
from components.train.stage import train
from components.training.data import read_split
from components.training.precision import choose_arithmetic
from components.training.selection import num_examples

MICRO_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Bench:
    """One task's runs, in one folder."""

    task: str
    protocol: Protocol
    folder: Path
    model: str
    seeds: list[int]
    num_trials: int

    @property
    def data_dir(self) -> Path:
        return self.folder / self.task

    def record(self, arm: str, rate: float, seed: int) -> Path:
        return self.folder / "runs" / f"{self.task}-{arm}-{rate:g}-{seed}.json"

    def result(self, arm: str, rate: float, seed: int) -> dict[str, Any] | None:
        path = self.record(arm, rate, seed)
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
        return found

    def trials(self, arm: str) -> dict[float, float]:
        """Learning rate -> score of the first seed, of a tuned arm's finished trials: a first rate, its double, then on by
        factors of two on the side that scored more.
        """
        found: dict[float, float] = {}
        while len(found) < self.num_trials and (result := self.result(arm, self.next_rate(arm, found), self.seeds[0])):
            found[self.next_rate(arm, found)] = result["score"]
        return found

    @staticmethod
    def next_rate(arm: str, tried: dict[float, float]) -> float:
        if not tried:
            return FIRST_RATES[ARMS[arm].optimizer]
        if len(tried) == 1 or max(tried, key=lambda rate: tried[rate]) == max(tried):
            return 2 * max(tried)
        return min(tried) / 2

    def best_rate(self, arm: str) -> float | None:
        """Of the finished trials; None before the first."""
        trials = self.trials(ARMS[arm].like or arm)
        return max(trials, key=lambda rate: trials[rate], default=None)

    def is_tuned(self, arm: str) -> bool:
        return len(self.trials(ARMS[arm].like or arm)) == self.num_trials

    def wanted(self, arms: list[str]) -> list[tuple[str, float, int]]:
        """Runs that are left and can be named by now, first things first: trials, the other seeds of tuned arms, controls."""
        tuned = [arm for arm in arms if not ARMS[arm].like]
        trials = {arm: self.trials(arm) for arm in tuned if not self.is_tuned(arm)}
        runs = [
            (arm, self.next_rate(arm, tried), self.seeds[0])
            for arm, tried in sorted(trials.items(), key=lambda item: len(item[1]))
        ]
        ready = [arm for arm in arms if self.is_tuned(arm)]
        best = {arm: rate for arm in ready if (rate := self.best_rate(arm)) is not None}
        runs += [(arm, best[arm], seed) for seed in self.seeds[1:] for arm in ready if arm in tuned]
        return runs + [(arm, best[arm], seed) for seed in self.seeds for arm in ready if arm not in tuned]


def adaptation(
    *,
    source: Path,
    output_dir: Path = Path("build/adaptation"),
    tasks: list[str] = ["sst2"],
    arms: list[str] = list(ARMS),
    seeds: list[int] = [0, 1, 2],
    num_trials: int = 3,
    model: str = "minilm",
    quick: bool = False,
    show: bool = False,
) -> None:
    """Run the arms that have not run yet, then show what there is.

    Args:
        source: Folder with GLUE's Parquet files in the Hugging Face schema, sst2/train.parquet and so on.
        output_dir: Folder for runs and results.
        tasks: sst2, rte.
        arms: Some of the arms, by name.
        seeds: The first is for the trials of learning rates too.
        num_trials: Learning rates that each tuned arm tries, 1 to 3.
        model: As in components.train.
        quick: Small sets, one seed and one trial, in OUTPUT_DIR/quick: the shape in minutes, scores without meaning.
        show: Run nothing.
    """
    for name, known, what in ((arms, ARMS, "arm"), (tasks, PROTOCOLS, "task")):
        if unknown := [one for one in name if one not in known]:
            raise UserError(f"unknown {what} {unknown[0]!r}: take {', '.join(known)}")
    if not 1 <= num_trials <= 3 or not seeds:
        raise UserError("give 1 to 3 for num_trials, and at least one seed")
    if quick:
        output_dir, seeds, num_trials = output_dir / "quick", seeds[:1], 1
    for task in tasks:
        bench = Bench(task, (QUICK if quick else PROTOCOLS)[task], output_dir, model, seeds, num_trials)
        prepare(bench, source)
        while not show and (todo := claim(bench, arms)):
            run(bench, *todo[:3])
            todo[3].close()
        report(bench, arms)


def prepare(bench: Bench, source: Path) -> None:
    """Tokenize the rows to train on and the rows to score on, once."""
    if (bench.data_dir / "manifest.json").is_file():
        return
    protocol = bench.protocol
    try:
        table = pq.read_table(source / bench.task / "train.parquet")
        held_out = table.slice(protocol.num_rows, protocol.num_scored)
        if not protocol.num_scored:
            held_out = pq.read_table(source / bench.task / "validation.parquet")
    except OSError as error:
        raise UserError(f"{source} has no {bench.task} in Parquet, in the Hugging Face schema: {error}") from None
    if len(table) < protocol.num_rows + protocol.num_scored:
        raise UserError(f"{source} has {len(table)} training rows of {bench.task}: too few")
    raw = bench.folder / "raw" / bench.task
    raw.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.slice(0, protocol.num_rows), raw / "train.parquet")
    pq.write_table(held_out, raw / "validation.parquet")
    tokenize(task=bench.task, source=str(raw.parent), model=bench.model, output_dir=bench.data_dir)


def claim(bench: Bench, arms: list[str]) -> tuple[str, float, int, TextIO] | None:
    """The first run that is neither done nor another process's, locked while the file is open."""
    for arm, rate, seed in bench.wanted(arms):
        record = bench.record(arm, rate, seed)
        if record.is_file():
            continue
        record.parent.mkdir(parents=True, exist_ok=True)
        lock = record.with_suffix(".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        if not record.is_file():
            return arm, rate, seed, lock
    return None


def run(bench: Bench, name: str, rate: float, seed: int) -> None:
    """Train, score, and write the record."""
    arm, record = ARMS[name], bench.record(name, rate, seed)
    folder = record.with_suffix("")
    started = time.monotonic()
    train(
        data_dir=bench.data_dir,
        model=bench.model,
        output_dir=folder,
        learning_rate=rate,
        base_batch_size=BASE_BATCH_SIZE,
        global_batch_size=bench.protocol.batch_size(arm),
        num_updates=bench.protocol.num_updates(arm),
        micro_batch_tokens=MICRO_BATCH_TOKENS,
        seed=seed,
        log_interval=5,
        **arm.settings,
    )
    seconds = time.monotonic() - started
    held_out = read_split(bench.data_dir, "validation")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = AutoModelForSequenceClassification.from_pretrained(folder).to(device).eval()
    _, predictions = predict(trained, held_out, 0, TASKS[bench.task], "held-out rows")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    result = {
        "task": bench.task,
        "arm": name,
        "learning_rate": rate,
        "seed": seed,
        "score": score(measure(TASKS[bench.task], held_out.labels.numpy(), predictions)),
        "scored_rows": len(held_out),
        "updates": lines[-1]["update"],
        "examples": lines[-1]["examples"],
        "final_loss": lines[-1]["loss"],
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "commit": git.stdout.strip(),
    }
    shutil.move(folder / "metrics.jsonl", record.with_suffix(".jsonl"))
    shutil.rmtree(folder)
    unfinished = record.with_suffix(".partial")
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(unfinished, record)


def reference(bench: Bench) -> dict[str, Any]:
    """Seconds of each kind of pass on the first machine that was asked, for both batch sizes; measured once, kept in a file."""
    path = bench.folder / f"reference-{bench.task}.json"
    if not path.is_file():
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        arithmetic = choose_arithmetic("auto", device)
        vocabulary_size = len(load_tokenizer(bench.model))
        network: Any = load_model(bench.model, TASKS[bench.task], vocabulary_size, parameters.dropout)
        prepare_model(network, device)
        rows = read_split(bench.data_dir, "train")
        passes = {
            str(size): measure_passes(network, rows, size, MICRO_BATCH_TOKENS, arithmetic, num_updates=max(1, 512 // size))
            for size in {bench.protocol.small_batch, bench.protocol.large_batch}
        }
        steps = {name: measure_step(network, name, device) for name in FIRST_RATES}
        machine = torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
        path.write_text(json.dumps({"machine": machine, "passes": passes, "steps": steps}, indent=1) + "\n")
    measured: dict[str, Any] = json.loads(path.read_text())
    return measured


def report(bench: Bench, arms: list[str]) -> None:
    """Table, JSON and plot of every arm that has a finished run."""
    known, rows = reference(bench), {}
    for name in arms:
        arm, rate = ARMS[name], bench.best_rate(name)
        results = [] if rate is None else [bench.result(name, rate, seed) for seed in bench.seeds]
        finished = [result for result in results if result]
        if not finished:
            continue
        scores = [result["score"] for result in finished]
        size, total = bench.protocol.batch_size(arm), bench.protocol.num_rows
        updates = bench.protocol.num_updates(arm)
        seconds = reference_seconds(
            arm.settled.method, known["passes"][str(size)], known["steps"][arm.optimizer], updates, total, size
        )
        rows[name] = {
            "label": arm.label,
            "batch_size": size,
            "learning_rate": rate,
            "trials": {f"{tried:g}": value for tried, value in bench.trials(name).items()} if not arm.like else {},
            "median": statistics.median(scores),
            "low": min(scores),
            "high": max(scores),
            "seeds": len(scores),
            "updates": updates,
            "examples": num_examples(updates, total, size),
            "seconds": statistics.median(result["seconds"] for result in finished),
            "reference_seconds": seconds,
        }
    print(f"{bench.task}: {bench.model}, {bench.protocol}; reference: {known['machine']}")
    print(f"{'arm':36} {'batch':>5} {'rate at 32':>10} {'trials':>6} {'score':>7} {'range':>15} {'seeds':>5} {'updates':>7} "
          f"{'examples':>8} {'wall s':>7} {'reference s':>11}")  # fmt: skip
    for row in rows.values():
        trials = len(row["trials"]) or ""
        print(f"{row['label']:36} {row['batch_size']:5} {row['learning_rate']:10.1e} {trials:>6} {row['median']:7.4f} "
              f"{row['low']:7.4f}-{row['high']:.4f} {row['seeds']:6} {row['updates']:7} {row['examples']:8} "
              f"{row['seconds']:7.0f} {row['reference_seconds']:11.0f}")  # fmt: skip
    written = {"task": bench.task, "model": bench.model, "protocol": vars(bench.protocol), "reference": known, "arms": rows}
    (bench.folder / f"adaptation-{bench.task}.json").write_text(json.dumps(written, indent=1) + "\n")
    plot(rows, bench.folder / f"adaptation-{bench.task}.png", bench)


def plot(rows: dict[str, dict[str, Any]], path: Path, bench: Bench) -> None:
    """Score against reference seconds."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for number, row in enumerate(rows.values()):
        spread = [[row["median"] - row["low"]], [row["high"] - row["median"]]]
        x, y = row["reference_seconds"], row["median"]
        axes.errorbar(x, y, yerr=spread, fmt="os^"[number // 10], capsize=3, label=row["label"].strip())  # of ten colours
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    axes.set_xlabel("reference seconds")
    axes.set_ylabel("score (median and range over seeds)")
    axes.set_title(
        f"{bench.task}, {bench.model}, {bench.protocol.num_rows} rows, {bench.protocol.num_epochs} epochs", fontsize=10
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    cli.run(adaptation, "python benchmarks/adaptation.py")
