"""OPTIMIZERS: how weights move, by name; and the learning rate's way from zero to its peak and back to exactly zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.parameters import Scaling
from components.training.budget import Progress

if TYPE_CHECKING:  # what checks parameters need not have torch
    from torch import Tensor, nn
    from torch.optim import Optimizer as TorchOptimizer

BASE_BATCH_SIZE = 32


@dataclass(frozen=True)
class Optimizer:
    """learning_rate: its own, for batches of BASE_BATCH_SIZE.  build: from the two groups of parameters, matrices and vectors,
    and a learning rate.
    """

    learning_rate: float
    build: Callable[[list[dict[str, Any]], float], TorchOptimizer]


def build_adamw(groups: list[dict[str, Any]], learning_rate: float) -> TorchOptimizer:
    """AdamW, fused (Loshchilov and Hutter, arXiv 1711.05101)."""
    import torch

    return torch.optim.AdamW(groups, learning_rate, fused=True)


def build_lamb(groups: list[dict[str, Any]], learning_rate: float) -> TorchOptimizer:
    """LAMB, without trust ratios for biases and LayerNorm."""
    from components.training.optimizers.lamb import Lamb

    matrices, vectors = groups
    return Lamb([matrices, {**vectors, "adapt": False}], learning_rate)


OPTIMIZERS: Mapping[str, Optimizer] = {"adamw": Optimizer(5e-5, build_adamw), "lamb": Optimizer(2e-4, build_lamb)}


def build_optimizer(name: str, model: nn.Module, learning_rate: float, weight_decay: float) -> TorchOptimizer:
    """The optimizer over the model's parameters, without decay for biases and LayerNorm."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return OPTIMIZERS[name].build(groups, learning_rate)


def trust_ratios(optimizer: TorchOptimizer) -> dict[str, Tensor]:
    """The spread of LAMB's trust ratios over the tensors of the last step, as scalars on their device; none for others."""
    ratios: Tensor | None = getattr(optimizer, "trust_ratios", None)
    if ratios is None:
        return {}
    return {"trust_ratio_min": ratios.min(), "trust_ratio_median": ratios.median(), "trust_ratio_max": ratios.max()}


def peak_learning_rate(
    optimizer: str, learning_rate: float, global_batch_size: int, base_batch_size: int = 0, scaling: Scaling = "sqrt"
) -> float:
    """The learning rate of batches of base_batch_size, scaled to batches of global_batch_size.

    With k = global_batch_size / base_batch_size: `linear` times k (Goyal et al., arXiv 1706.02677), `sqrt` times its
    square root (Krizhevsky, arXiv 1404.5997). Zeros as `base_rate` has them.
    """
    rate, base = base_rate(optimizer, learning_rate, global_batch_size, base_batch_size)
    return rate * {"none": 1.0, "linear": global_batch_size / base, "sqrt": (global_batch_size / base) ** 0.5}[scaling]


def base_rate(optimizer: str, learning_rate: float, global_batch_size: int, base_batch_size: int) -> tuple[float, int]:
    """A learning rate, and the size of the batches that it is for. A rate of 0 is the optimizer's own, for batches of 32; a
    base_batch_size of 0 is global_batch_size where there is a rate, else 32.
    """
    base = base_batch_size or (global_batch_size if learning_rate else BASE_BATCH_SIZE)
    return learning_rate or OPTIMIZERS[optimizer].learning_rate, base


def schedule(progress: Progress, warmup: float) -> float:
    """Factor on the peak learning rate: up in a line over the first `warmup` of the budget, then down in a line.

    The first update moves, and so does the last; at the end of the budget the factor is 0.0 exactly, and beyond it never
    negative.
    """
    if progress.share < warmup:
        return (progress.share + progress.step) / (warmup + progress.step)
    return max(0.0, (1 - progress.share) / (1 - warmup)) if warmup < 1 else 0.0
