"""Sophia's estimate of the Hessian's diagonal: the squared gradient of losses whose labels the model draws itself."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from components.training import randomness
from components.training.budget import Progress
from components.training.data import Batch
from components.training.divergences import at_least_fp32
from components.training.method import Loss, Passes
from components.training.objectives import Objective


@dataclass(frozen=True)
class SampledLabels:
    """The task's loss with labels drawn from the model's own predictions, at the positions that are trained (Liu et al., arXiv
    2305.14342, algorithm 2, Gauss-Newton-Bartlett). Its mean gradient, squared, times the number of loss terms is in
    expectation the diagonal of the Gauss-Newton matrix.

    The draw is a function of seed, update and example: it depends neither on the rank nor on the micro-batch.
    """

    part_names: ClassVar[tuple[str, ...]] = ("terms",)

    def passes(self, progress: Progress) -> Passes:
        return Passes(forwards=1, input_backwards=0, backwards=1)

    def losses(self, objective: Objective, model: nn.Module, batch: Batch, progress: Progress) -> Iterator[Loss]:
        outputs = objective.outputs(model, batch)
        drawn = replace(batch, labels=sampled_labels(outputs.detach(), batch, progress))
        yield Loss(objective.losses(outputs, drawn).sum(), {"terms": num_terms(batch)})


def num_terms(batch: Batch) -> Tensor:
    """How many losses are averaged: a scalar on the batch's device. Of an example with a label, one."""
    counted = torch.ones_like(batch.labels, dtype=torch.bool) if batch.labels.is_floating_point() else batch.labels >= 0
    return counted.sum()


def sampled_labels(outputs: Tensor, batch: Batch, progress: Progress) -> Tensor:
    """Labels drawn from the predictions, in the shape and type of the batch's own; a negative class, which counts for nothing,
    stays.

    outputs: (..., classes) logits, or (examples, 1) scores. A score is drawn from a normal distribution around the prediction
    with variance 1/2, of which the squared error is the negative log-likelihood.
    """
    labels = batch.labels
    rows = batch.rows.to(outputs.device).view(-1, *[1] * (labels.ndim - 1)).expand(labels.shape)
    positions = torch.arange(1, 1 + labels[0].numel(), device=outputs.device).view(1, *labels.shape[1:]).expand(labels.shape)
    bits = randomness.key(progress.seed, randomness.LABELS, progress.update, rows, positions)
    if labels.is_floating_point():
        first, second = randomness.uniform(bits), randomness.uniform(randomness.scramble(bits))
        normal = (-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos()  # Box and Muller 1958
        return at_least_fp32(outputs).squeeze(-1) + normal.to(labels.dtype) * 0.5**0.5
    shares = at_least_fp32(outputs).softmax(-1).cumsum(-1)
    drawn = (shares < randomness.uniform(bits)[..., None] * shares[..., -1:]).sum(-1)
    return torch.where(labels < 0, labels, drawn)
