"""What does an update of each method cost, in updates of plain training, by the clock and by its card?

    python benchmarks/methods.py [--quick]

All methods compute the same update of the same examples, micro-batch by micro-batch in turn, so that a machine that slows down
slows down all of them alike; the ratio to plain is taken within each round, and its median over the rounds is shown. An update
is everything: batches, passes, clipping, optimizer. The examples are random tokens with SST-2's lengths (4 to 64 tokens, 13 on
average): costs do not depend on what the words are. Prints a table; writes methods.json and methods.png.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from components import cli, parameters
from components.errors import UserError
from components.modeling.load import load_model, load_tokenizer
from components.modeling.packed import is_packed
from components.modeling.prepare import prepare_model
from components.parameters import Precision
from components.tasks.table import TASKS
from components.training.budget import Progress
from components.training.data import Split, micro_batches
from components.training.method import Method
from components.training.methods import build_method
from components.training.objectives import Classification
from components.training.optimizers import build_optimizer
from components.training.precision import Arithmetic, choose_arithmetic
from components.training.update import accumulate_gradients

NOISY = Progress(update=1, share=0.5, seed=0)  # half way, where ScaLA's noise has begun
CASES: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain"},
    "rdrop": {"method": "rdrop"},
    "pgd K=1": {"method": "pgd", "perturbation_steps": 1},
    "pgd K=3": {"method": "pgd", "perturbation_steps": 3},
    "freelb m=2": {"method": "freelb", "perturbation_steps": 2},
    "freelb m=3": {"method": "freelb", "perturbation_steps": 3},
    "smart": {"method": "smart"},
    "scala": {"method": "scala"},
    "scala K=2": {"method": "scala", "perturbation_steps": 2},
    "scala, shared dropout": {"method": "scala", "perturbation_dropout": "shared"},
    "scala, direction label": {"method": "scala", "perturbation_direction": "label"},
    "scala, half of the batch": {"method": "scala", "perturbation_fraction": 0.5},
    "scala, random noise": {"method": "scala", "perturbation_step_size": 0.0},
}


def methods(
    *,
    output_dir: Path = Path("build/methods"),
    model: str = "minilm",
    batch_size: int = 1024,
    micro_batch_tokens: int = 1024,
    rounds: int = 5,
    cases: list[str] = list(CASES),
    precision: Precision = "auto",
    quick: bool = False,
) -> None:
    """Measure the cost of an update of each method against plain training.

    Args:
        output_dir: Folder for methods.json and methods.png.
        model: As in components.train.
        batch_size: Examples per update.
        micro_batch_tokens: About the most tokens of a micro-batch.
        rounds: Times that each method is measured.
        cases: Some of the cases, by the names in the table; plain is always one of them.
        precision: As in components.train.
        quick: Batches of 128 and 3 rounds: a minute or two.
    """
    if quick:
        batch_size, rounds = min(batch_size, 128), min(rounds, 3)
    if min(batch_size, micro_batch_tokens, rounds) < 1:
        raise UserError("batch_size, micro_batch_tokens and rounds must be 1 or more")
    if unknown := [case for case in cases if case not in CASES]:
        raise UserError(f"unknown case {unknown[0]!r}: take {', '.join(CASES)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arithmetic = choose_arithmetic(precision, device)
    network: Any = load_model(model, TASKS["sst2"], len(load_tokenizer(model)), parameters.dropout)
    prepare_model(network, device)
    rows = random_rows(batch_size, network.config.vocab_size)
    pieces = micro_batches(torch.arange(batch_size), rows.lengths, micro_batch_tokens, 0, 1)
    chosen = {name: case for name, case in CASES.items() if name == "plain" or name in cases}
    built: dict[str, Method] = {name: build_method(case["method"], case) for name, case in chosen.items()}
    optimizer = build_optimizer("adamw", network, 1e-6, 0.0)

    seconds: dict[str, list[float]] = {name: [] for name in built}
    for method in built.values():
        pass_seconds(network, method, rows, pieces[0], arithmetic)  # warm
    with tqdm(total=rounds * len(pieces), desc="methods", unit=" micro-batches", disable=None) as bar:
        for _ in range(rounds):
            spent = dict.fromkeys(built, 0.0)
            for piece in pieces:
                for name, method in built.items():
                    spent[name] += pass_seconds(network, method, rows, piece, arithmetic)
                bar.update()
            step = step_seconds(network, arithmetic, optimizer)
            for name in built:
                seconds[name].append(spent[name] + step)

    results = {name: summarize(method, seconds[name], seconds["plain"]) for name, method in built.items()}
    if "scala" in built:
        halfway = [(1 + noisy / plain) / 2 for noisy, plain in zip(seconds["scala"], seconds["plain"], strict=True)]
        card = (1 + built["scala"].passes(NOISY).relative) / 2
        results["scala, mean over a run"] = spread(halfway) | {"model": card, "seconds": statistics.median(seconds["scala"])}
    machine = f"{device.type}, {torch.get_num_threads()} threads, {arithmetic.name}, torch {torch.__version__}"
    if device.type == "cuda":
        machine = f"{torch.cuda.get_device_name()}, {arithmetic.name}, torch {torch.__version__}"
    print(f"{model}, {batch_size} examples an update, micro-batches of {micro_batch_tokens} tokens, {rounds} rounds; {machine}")
    print(f"{'method':26} {'card':>6} {'measured':>9} {'range':>13} {'measured / card':>16}")
    for name, result in results.items():
        extent = f"{result['low']:.2f}-{result['high']:.2f}"
        share = result["ratio"] / result["model"]
        print(f"{name:26} {result['model']:6.2f} {result['ratio']:9.2f} {extent:>13} {share:16.2f}")
    output_dir.mkdir(parents=True, exist_ok=True)
    setting = {"model": model, "batch_size": batch_size, "micro_batch_tokens": micro_batch_tokens, "rounds": rounds}
    written = {"machine": machine, **setting, "methods": results}
    (output_dir / "methods.json").write_text(json.dumps(written, indent=1) + "\n")
    plot(results, output_dir / "methods.png", f"{model}, batch {batch_size}; {machine}")


def random_rows(count: int, vocab_size: int) -> Split:
    """Rows of 4 to 64 random tokens, about 13 on average, as SST-2's training phrases are."""
    generator = torch.Generator().manual_seed(0)
    lengths = (4 + torch.empty(count).exponential_(1 / 9.5, generator=generator)).long().clamp(max=64)
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)))
    tokens = torch.randint(vocab_size // 2, vocab_size, (int(offsets[-1]),), generator=generator, dtype=torch.int32)
    return Split({"input_ids": tokens}, offsets, torch.randint(0, 2, (count,), generator=generator))


def pass_seconds(network: nn.Module, method: Method, rows: Split, piece: Tensor, arithmetic: Arithmetic) -> float:
    """A micro-batch, from its row numbers to its gradient."""
    torch.manual_seed(0)
    synchronize(arithmetic.device)
    started = time.perf_counter()
    batches = [rows.batch(piece, 0, arithmetic.device, is_packed(network))]  # type: ignore[arg-type]
    for _ in accumulate_gradients(network, method, Classification(), batches, 1, NOISY, 1 / len(piece), arithmetic):
        pass
    synchronize(arithmetic.device)
    return time.perf_counter() - started


def step_seconds(network: nn.Module, arithmetic: Arithmetic, optimizer: torch.optim.Optimizer) -> float:
    """What ends an update: clipping and the optimizer's step."""
    started = time.perf_counter()
    arithmetic.scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    arithmetic.scaler.step(optimizer)
    arithmetic.scaler.update()
    optimizer.zero_grad(set_to_none=False)
    synchronize(arithmetic.device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def summarize(method: Method, seconds: list[float], plain: list[float]) -> dict[str, float]:
    ratios = [mine / theirs for mine, theirs in zip(seconds, plain, strict=True)]
    return spread(ratios) | {"model": method.passes(NOISY).relative, "seconds": statistics.median(seconds)}


def spread(ratios: list[float]) -> dict[str, float]:
    return {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def plot(results: dict[str, dict[str, float]], path: Path, title: str) -> None:
    names = list(results)[::-1]
    figure, axes = plt.subplots(figsize=(8, 0.36 * len(names) + 1.4), layout="constrained")
    ratios = [results[name]["ratio"] for name in names]
    errors = [
        [results[name]["ratio"] - results[name]["low"] for name in names],
        [results[name]["high"] - results[name]["ratio"] for name in names],
    ]
    axes.barh(names, ratios, xerr=errors, color="#4477aa", ecolor="#555555", height=0.6, label="measured (median and range)")
    axes.plot(
        [results[name]["model"] for name in names],
        range(len(names)),
        "|",
        color="#ee6677",
        markersize=16,
        markeredgewidth=2.5,
        label="card",
    )
    axes.set_xlabel("cost of an update (plain = 1)")
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    cli.run(methods, "python benchmarks/methods.py")
