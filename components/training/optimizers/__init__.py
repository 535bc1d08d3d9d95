"""OPTIMIZERS: how weights move, by name; and the learning rate's way from zero to its peak and back to exactly zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.parameters import Scaling
from components.training.budget import Progress

if TYPE_CHECKING:  # what checks parameters need not have torch
    from torch import Tensor, nn
    from torch.optim import Optimizer as TorchOptimizer

BASE_BATCH_SIZE = 32


@dataclass(frozen=True)
class Optimizer:
    """learning_rate: its own, for batches of BASE_BATCH_SIZE.  build: from the groups of parameters that `groups_of` makes, and
    a learning rate.  decays: whether the rate falls to zero at the end.  refused: precisions that it cannot be trained in.
    """

    learning_rate: float
    build: Callable[[list[dict[str, Any]], float], TorchOptimizer]
    decays: bool = True
    refused: tuple[str, ...] = ()


def build_adamw(groups: list[dict[str, Any]], learning_rate: float) -> TorchOptimizer:
    """AdamW, fused (Loshchilov and Hutter, arXiv 1711.05101)."""
    import torch

    return torch.optim.AdamW(groups, learning_rate, fused=True)


def build_lamb(groups: list[dict[str, Any]], learning_rate: float) -> TorchOptimizer:
    """LAMB, without trust ratios for biases and LayerNorm."""
    from components.training.optimizers.lamb import Lamb

    return Lamb([{**group, "adapt": group["name"] != "vectors"} for group in groups], learning_rate)


def build_lion(groups: list[dict[str, Any]], learning_rate: float) -> TorchOptimizer:
    """Lion."""
    from components.training.optimizers.lion import Lion

    return Lion(groups, learning_rate)


def build_sophia(groups: list[dict[str, Any]], learning_rate: float) -> TorchOptimizer:
    """Sophia-G."""
    from components.training.optimizers.sophia import Sophia

    return Sophia(groups, learning_rate)


def build_muon(groups: list[dict[str, Any]], learning_rate: float) -> TorchOptimizer:
    """Muon for the matrices of the layers; AdamW for the embeddings, the head, biases and LayerNorm."""
    from components.training.optimizers.muon import Muon

    return Muon([{**group, "orthogonal": group["name"] == "layers"} for group in groups], learning_rate)


def build_soap(groups: list[dict[str, Any]], learning_rate: float) -> TorchOptimizer:
    """SOAP for the matrices of the layers and the head; AdamW for the embeddings, biases and LayerNorm."""
    from components.training.optimizers.soap import Soap

    return Soap([{**group, "rotated": group["name"] in ("layers", "head")} for group in groups], learning_rate)


def build_schedule_free(groups: list[dict[str, Any]], learning_rate: float) -> TorchOptimizer:
    """Schedule-free AdamW."""
    from components.training.optimizers.schedule_free import ScheduleFree

    return ScheduleFree(groups, learning_rate)


OPTIMIZERS: Mapping[str, Optimizer] = {
    "adamw": Optimizer(5e-5, build_adamw),
    "lamb": Optimizer(2e-4, build_lamb),
    "lion": Optimizer(1e-5, build_lion),
    "sophia": Optimizer(2e-5, build_sophia, refused=("fp16",)),  # squares of gradients are below what fp16's scale saves
    "muon": Optimizer(5e-5, build_muon),
    "soap": Optimizer(5e-5, build_soap),
    "schedule-free": Optimizer(5e-5, build_schedule_free, decays=False),
}


def check_precision(optimizer: str, precision: str) -> None:
    """UserError where the optimizer cannot work with gradients of that precision."""
    if precision in OPTIMIZERS[optimizer].refused:
        raise UserError(f"optimizer {optimizer} cannot be trained in {precision}: take --precision bf16 or fp32")


def build_optimizer(
    name: str,
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    decay_vectors: bool = False,
    adam_epsilon: float = 0.0,
    beta1: float = 0.0,
    beta2: float = 0.0,
    sophia_rho: float = 0.0,
    hessian_interval: int = 0,
) -> TorchOptimizer:
    """The optimizer over the model's parameters, without decay for biases and LayerNorm unless `decay_vectors`.  Zeros are the
    optimizer's own values.
    """
    decays = {"vectors": weight_decay if decay_vectors else 0.0}
    groups = [
        {"params": weights, "name": group, "weight_decay": decays.get(group, weight_decay)}
        for group, weights in groups_of(model).items()
    ]
    optimizer = OPTIMIZERS[name].build(groups, learning_rate)
    given = {"eps": adam_epsilon, "rho": sophia_rho, "hessian_interval": hessian_interval}
    for group in optimizer.param_groups:
        group.update({key: value for key, value in given.items() if value and key in group})
        if "betas" in group:
            group["betas"] = (beta1 or group["betas"][0], beta2 or group["betas"][1])
    return optimizer


def groups_of(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Every parameter of the model, once: `embeddings` (tables), `layers` (their matrices), `head` (matrices outside the base
    model) and `vectors` (biases and norms, wherever they are). Without those that would be empty.
    """
    from torch import nn

    inside: nn.Module = getattr(model, "base_model", model)
    tables = {weight for module in model.modules() if isinstance(module, nn.Embedding) for weight in module.parameters()}
    of_base = set(inside.parameters())
    groups: dict[str, list[nn.Parameter]] = {"embeddings": [], "layers": [], "head": [], "vectors": []}
    for weight in model.parameters():
        kind = "embeddings" if weight in tables else "layers" if weight in of_base else "head"
        groups["vectors" if weight.ndim <= 1 else kind].append(weight)
    return {name: weights for name, weights in groups.items() if weights}


def take_average(optimizer: TorchOptimizer) -> None:
    """After the last step: let the network have the weights that are evaluated and saved, where they are not those that were
    trained.
    """
    average = getattr(optimizer, "take_average", None)
    if average is not None:
        average()


def trust_ratios(optimizer: TorchOptimizer) -> dict[str, Tensor]:
    """The spread of LAMB's trust ratios over the tensors of the last step, as scalars on their device; none for others."""
    ratios: Tensor | None = getattr(optimizer, "trust_ratios", None)
    if ratios is None:
        return {}
    return {"trust_ratio_min": ratios.min(), "trust_ratio_median": ratios.median(), "trust_ratio_max": ratios.max()}


def steps_taken(optimizer: TorchOptimizer) -> dict[str, Tensor]:
    """Sophia's win_rate and hessian_share at its last step, scalars on their device; none for others."""
    scalars: Callable[[], dict[str, Tensor]] | None = getattr(optimizer, "scalars", None)
    return scalars() if scalars else {}


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


def schedule(progress: Progress, warmup: float, decays: bool = True) -> float:
    """Factor on the peak learning rate: up in a line over the first `warmup` of the budget, then down in a line, or with
    decays=False as it is.

    The first update moves, and so does the last; at the end of the budget the factor is 0.0 exactly, and beyond it never
    negative.
    """
    if progress.share < warmup:
        return (progress.share + progress.step) / (warmup + progress.step)
    if not decays:
        return 1.0
    return max(0.0, (1 - progress.share) / (1 - warmup)) if warmup < 1 else 0.0
