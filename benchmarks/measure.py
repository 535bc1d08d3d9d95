"""What the benchmarks share: a process of its own for each measurement, medians with their range, JSON and bars."""

import json
import multiprocessing
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

Result = TypeVar("Result")

COLORS = ("#4477aa", "#ee6677", "#ccbb44", "#228833", "#66ccee", "#aa3377")


def alone(function: Callable[..., Result], *args: Any) -> Result:
    """Call it in a fresh process: nothing that another measurement allocated, imported or warmed is there."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def machine() -> str:
    """In words: what the figures are of."""
    versions = f"torch {torch.__version__}, {platform.system()}"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {versions}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{os.cpu_count()} CPU threads ({platform.machine()}, {capability}), {memory:.0f} GiB, {versions}"


def save(folder: Path, name: str, results: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")


def bars(path: Path, title: str, label: str, groups: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """groups: group -> side -> what `spread` gives. Every group is a row of horizontal bars, one colour a side."""
    sides = list(dict.fromkeys(side for group in groups.values() for side in group))
    height = 0.8 / len(sides)
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(groups) * len(sides) + 1.4), layout="constrained")
    for at, side in enumerate(sides):
        there = [(row, group[side]) for row, group in enumerate(groups.values()) if side in group]
        values = [result["median"] for _, result in there]
        errors = [
            [result["median"] - result["low"] for _, result in there],
            [result["high"] - result["median"] for _, result in there],
        ]
        places = [row + (at - (len(sides) - 1) / 2) * height for row, _ in there]
        drawn = axes.barh(places, values, height * 0.9, xerr=errors, color=COLORS[at], ecolor="#555555", label=side)
        axes.bar_label(drawn, [f"{value:.3g}" for value in values], padding=6, fontsize=8)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(label)
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
