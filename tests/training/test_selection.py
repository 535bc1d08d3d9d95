"""Which examples an update computes, and what a selection may know to choose them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from components.train.stage import train
from components.training.budget import Progress
from components.training.selection import Shuffled, rows_of_update

SETTINGS: dict[str, Any] = {
    "model": "tiny",
    "method": "plain",
    "num_updates": 5,
    "global_batch_size": 33,
    "learning_rate": 1e-3,
    "micro_batch_tokens": 100,
    "precision": "fp32",
}


def test_shuffled_is_a_function_of_the_seed_and_the_update() -> None:
    selection = Shuffled(num_rows=100, global_batch_size=33)
    for update in (0, 3, 4, 11):
        rows = selection.rows(Progress(update, update / 20, seed=7))
        assert torch.equal(rows, rows_of_update(update, 100, 33, 7))
    assert selection.state() == {}


def test_a_selection_may_score_examples_and_that_changes_nothing_else(
    tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are the losses of the very rows, in their order, without a gradient; dropout is drawn as if nobody had looked."""
    train(data_dir=tokenized("rte"), output_dir=tmp_path / "blind", **SETTINGS)
    plain, scored = Shuffled.rows, []

    def looking(self: Shuffled, progress: Progress, score: Callable[[Tensor], Tensor]) -> Tensor:
        rows = plain(self, progress)
        scored.append((score(rows), score(rows[:5])))
        return rows

    monkeypatch.setattr(Shuffled, "rows", looking)
    train(data_dir=tokenized("rte"), output_dir=tmp_path / "looking", **SETTINGS)
    assert len(scored) == 5
    for losses, _ in scored:
        assert losses.shape == (33,)
        assert losses.isfinite().all()
        assert not losses.requires_grad
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("blind", "looking"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_scores_are_the_losses_that_the_update_then_has(
    tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, means = Shuffled.rows, []

    def looking(self: Shuffled, progress: Progress, score: Callable[[Tensor], Tensor]) -> Tensor:
        rows = plain(self, progress)
        means.append(float(score(rows).mean()))
        return rows

    monkeypatch.setattr(Shuffled, "rows", looking)
    train(data_dir=tokenized("rte"), output_dir=tmp_path / "m", dropout=0.0, **SETTINGS)
    lines = [json.loads(line) for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    assert means == pytest.approx([line["loss"] for line in lines], rel=1e-5)
