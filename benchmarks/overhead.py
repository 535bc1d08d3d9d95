"""What does the local pipeline cost beyond its stages, and how long does a run take that an earlier one has made?

    python benchmarks/overhead.py [--quick]

In turns: the whole pipeline (python -m pipelines.local adapt ...), the same again, which finds everything in the cache, and the
five stages by hand (python -m components.tokenize ... and so on), with MLflow in a fresh sqlite file each time. The overhead is
what the first takes longer than the last: kfp, MLflow's runs, a process more. Of each stage by hand it also says how many
seconds were work, by its manifest; the others are Python's imports. Prints a table; writes overhead.json and overhead.png.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import bars, machine, save, spread
from tqdm import tqdm

from components import cli
from components.artifacts.folders import FILE
from components.errors import UserError

STAGES = ("tokenize", "train", "evaluate", "register", "promote")
PIPELINE, CACHED, BY_HAND = "pipeline", "pipeline again, cached", "stages by hand"


def overhead(
    *,
    output_dir: Path = Path("build/overhead"),
    model: str = "minilm",
    num_rows: int = 1600,
    num_epochs: int = 3,
    rounds: int = 3,
    quick: bool = False,
) -> None:
    """Measure the local pipeline against its stages by hand.

    Args:
        output_dir: Folder for the results.
        model: As in components.train.
        num_rows: Generated training rows.
        num_epochs: Passes over them.
        rounds: Times that all is measured.
        quick: The tiny model, 200 rows, one epoch, one round.
    """
    if quick:
        model, num_rows, num_epochs, rounds = "tiny", 200, 1, 1
    if min(num_rows, num_epochs, rounds) < 1:
        raise UserError("num_rows, num_epochs and rounds must be 1 or more")
    data = ["--task", "sst2", "--source", "sample", "--num-sample-rows", str(num_rows), "--model", model]
    training = ["--method", "scala", "--num-epochs", str(num_epochs), "--global-batch-size", "64", "--learning-rate", "2e-4"]
    seconds: dict[str, list[float]] = {side: [] for side in (PIPELINE, CACHED, BY_HAND)}
    stages: dict[str, list[float]] = {stage: [] for stage in STAGES}
    work: dict[str, float] = {}
    with tqdm(total=rounds * 3, desc="overhead", unit=" runs", disable=None) as bar:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                command = ["pipelines.local", "adapt", *data, *training, "--runs-dir", f"{folder}/runs"]
                for side in (PIPELINE, CACHED):
                    seconds[side].append(_seconds(command))
                    bar.update()
                by_hand = _commands(Path(folder), data, training, model)
                if not list(Path(folder).glob("runs/adapt-*/*/promote")):  # the gate kept the model out: there is no such step
                    del by_hand["promote"]
                os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/by-hand.db"
                for stage, arguments in by_hand.items():
                    stages[stage].append(_seconds([f"components.{stage}", *arguments]))
                del os.environ["MLFLOW_TRACKING_URI"]
                seconds[BY_HAND].append(sum(stages[stage][-1] for stage in by_hand))
                bar.update()
                work = {stage: json.loads((Path(folder) / stage / FILE).read_text())["seconds"] for stage in STAGES[:3]}

    stages = {stage: taken for stage, taken in stages.items() if taken}
    results = {side: spread(values) for side, values in seconds.items()}
    ratios = [whole / parts for whole, parts in zip(seconds[PIPELINE], seconds[BY_HAND], strict=True)]
    print(f"{model}, {num_rows} generated rows, {num_epochs} epoch(s), {rounds} round(s); {machine()}")
    for side, result in results.items():
        print(f"{side:24} {result['median']:7.1f} s ({result['low']:.1f}-{result['high']:.1f})")
    for stage, taken in stages.items():
        of_it = f", {work[stage]:.1f} s of it work" if stage in work else ""
        print(f"  {stage:22} {spread(taken)['median']:7.1f} s{of_it}")
    print(f"overhead {spread(ratios)['median'] - 1:.1%} ({min(ratios) - 1:.1%} to {max(ratios) - 1:.1%})")
    setting = {"model": model, "num_rows": num_rows, "num_epochs": num_epochs, "rounds": rounds}
    by_stage = {stage: {**spread(taken), "work": work.get(stage)} for stage, taken in stages.items()}
    save(output_dir, "overhead", {**setting, "overhead": spread(ratios)["median"] - 1, "sides": results, "stages": by_stage})
    bars(output_dir / "overhead.png", f"{model}, {num_rows} generated rows; {machine()}", "seconds", {"": results})


def _commands(folder: Path, data: list[str], training: list[str], model: str) -> dict[str, list[str]]:
    to = {stage: str(folder / stage) for stage in STAGES}
    return {
        "tokenize": [*data, "--output-dir", to["tokenize"]],
        "train": ["--data-dir", to["tokenize"], "--model", model, *training, "--output-dir", to["train"]],
        "evaluate": ["--model-dir", to["train"], "--data-dir", to["tokenize"], "--output-dir", to["evaluate"]],
        "register": ["--model-dir", to["train"], "--evaluation-dir", to["evaluate"], "--no-auto-promote"],
        "promote": ["--model-uri", "models:/sample-sst2@challenger"],
    }


def _seconds(command: list[str]) -> float:
    """Of `python -m COMMAND`, from its start to its end."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"python -m {' '.join(command)} failed: {done.stderr.strip().splitlines()[-1]}")
    return time.perf_counter() - started


if __name__ == "__main__":
    cli.run(overhead, "python benchmarks/overhead.py")
