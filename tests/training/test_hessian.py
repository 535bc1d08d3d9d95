"""Sophia's labels come from the model's own predictions, by seed, update and example; and what they cost is counted."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from test_methods import PROGRESS, batch, model

from components.errors import UserError
from components.train.settings import settle
from components.train.stage import train
from components.training.data import Batch
from components.training.hessian import SampledLabels, num_terms, sampled_labels
from components.training.objectives import objective_of

MANY = 20_000


def many(labels: torch.Tensor) -> Batch:
    """As many examples as there are labels; of which nothing else counts here."""
    tokens = torch.ones(len(labels), 1, dtype=torch.int64)
    return Batch(tokens, tokens, None, labels, torch.arange(len(labels)))


def test_classes_are_drawn_as_often_as_they_are_predicted() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5], dtype=torch.float64)
    drawn = sampled_labels(logits.expand(MANY, 4), many(torch.zeros(MANY, dtype=torch.int64)), PROGRESS)
    expected = logits.softmax(0) * MANY
    assert stats.chisquare(drawn.bincount(minlength=4).numpy(), expected.numpy()).pvalue > 0.01


def test_scores_are_drawn_around_the_prediction() -> None:
    predicted = torch.linspace(-1, 5, MANY, dtype=torch.float64)[:, None]
    drawn = sampled_labels(predicted, many(torch.zeros(MANY, dtype=torch.float64)), PROGRESS)
    assert stats.kstest((drawn - predicted.squeeze(-1)).numpy(), stats.norm(0, 0.5**0.5).cdf).pvalue > 0.01


def test_every_place_of_an_example_has_a_draw_of_its_own_and_what_counts_for_nothing_stays() -> None:
    labels = torch.full((500, 3), 7)
    labels[:, 2] = -100
    data = many(labels)
    drawn = sampled_labels(torch.zeros(500, 3, 9), data, PROGRESS)
    assert drawn[:, 2].eq(-100).all()
    assert 0 <= drawn[:, :2].min() <= drawn[:, :2].max() <= 8
    assert drawn[:, 0].eq(drawn[:, 1]).double().mean() < 0.2  # of nine classes
    assert num_terms(data) == 1000


def test_a_label_follows_from_seed_update_and_example() -> None:
    logits = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    data = many(torch.zeros(100, dtype=torch.int64))
    drawn = sampled_labels(logits, data, PROGRESS)
    some = torch.tensor([70, 3, 41])
    assert torch.equal(sampled_labels(logits[some], data.take(some), PROGRESS), drawn[some])
    for other in (replace(PROGRESS, update=4), replace(PROGRESS, seed=6)):
        assert not torch.equal(sampled_labels(logits, data, other), drawn)
    assert torch.equal(sampled_labels(logits, data, replace(PROGRESS, share=0.9)), drawn)


@pytest.mark.parametrize("scores", [False, True], ids=["classes", "scores"])
def test_the_estimate_is_the_gauss_newton_matrix_in_the_mean(scores: bool) -> None:
    """Of the head's bias, where that is known: p (1 - p) of each class, and 2 of a score, averaged over the examples."""
    network, data = model(1 if scores else 3), batch(scores)
    bias = network.get_parameter("classifier.bias")
    with torch.no_grad():
        p = network(input_ids=data.input_ids, **data.context).logits.softmax(-1)
    expected = torch.tensor([2.0], dtype=torch.float64) if scores else (p * (1 - p)).mean(0)
    squares = []
    for update in range(300):
        (loss,) = SampledLabels().losses(objective_of(scores), network, data, replace(PROGRESS, update=update))
        (gradient,) = torch.autograd.grad(loss.total / 4, bias)
        squares.append(4 * gradient**2)
    assert (torch.stack(squares).mean(0) / expected).tolist() == pytest.approx([1.0] * len(expected), abs=0.3)


def test_an_estimate_is_work_but_of_no_example(tokenized: Callable[[str], Path], tmp_path: Path) -> None:
    lines: dict[str, Any] = {}
    for optimizer in ("sophia", "adamw"):
        folder = tmp_path / optimizer
        train(
            data_dir=tokenized("stsb"), output_dir=folder, model="tiny", optimizer=optimizer, hessian_interval=3, num_updates=7
        )
        lines[optimizer] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines["sophia"][0]["loss"] == lines["adamw"][0]["loss"]  # of true labels, not of drawn ones
    for number, (with_it, without) in enumerate(zip(lines["sophia"], lines["adamw"], strict=True)):
        passes = 2 if number % 3 == 0 else 1
        assert (with_it["examples"], with_it["tokens"]) == (without["examples"], without["tokens"])
        for kind in ("forwards", "backwards"):
            assert with_it[kind] == passes * without[kind]


def test_sophia_is_not_trained_in_fp16() -> None:
    with pytest.raises(UserError, match="optimizer sophia cannot be trained in fp16: take --precision bf16 or fp32"):
        settle({"optimizer": "sophia", "precision": "fp16"}, 0)
