"""16-bit arithmetic: what it casts, and how often."""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from components.modeling.load import load_model, load_tokenizer
from components.modeling.prepare import prepare_model
from components.tasks.table import TASKS
from components.training.budget import Progress
from components.training.data import micro_batches, read_split
from components.training.methods import METHODS, build_method
from components.training.objectives import Classification
from components.training.precision import Arithmetic
from components.training.update import accumulate_gradients

CPU = torch.device("cpu")


class Casts(TorchDispatchMode):
    """Counts how often each of the tensors is cast."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.names = {weight.data_ptr(): name for name, weight in weights.items()}
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.names:
            self.counted[self.names[args[0].data_ptr()]] += 1
        return func(*args, **(kwargs or {}))


def update(data: Path, method: str, arithmetic: Arithmetic) -> tuple[dict[str, torch.Tensor], Counter[str], int]:
    """Gradients of an update by weight, how often each weight was cast, and the number of micro-batches."""
    torch.manual_seed(0)
    network = load_model("tiny", TASKS["rte"], len(load_tokenizer("tiny")), 0.1)
    prepare_model(network, CPU)
    rows = read_split(data, "train")
    pieces = micro_batches(torch.arange(32), rows.lengths[:32], 200, 0, 1)
    batches = (rows.batch(piece, 0, CPU, True) for piece in pieces)
    progress = Progress(0, 0.9, 0)
    with Casts(dict(network.named_parameters())) as casts:
        for _ in accumulate_gradients(
            network, build_method(method, {}), Classification(), batches, len(pieces), progress, 1 / 32, arithmetic
        ):
            pass
    return {name: weight.grad for name, weight in network.named_parameters()}, casts.counted, len(pieces)  # type: ignore[misc]


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_is_cast_once_an_update(
    tokenized: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """But for the ascent, to which weights are constants; and the gradients are what they were to the bit."""
    got, once, number = update(tokenized("rte"), method, Arithmetic("bf16", CPU))
    monkeypatch.setattr(Arithmetic, "cast_once", lambda self: contextlib.nullcontext())
    wanted, often, _ = update(tokenized("rte"), method, Arithmetic("bf16", CPU))
    assert number > 2
    matrix = "bert.encoder.layer.0.intermediate.dense.weight"
    passes = build_method(method, {}).passes(Progress(0, 0.9, 0))
    assert once[matrix] == 1 + number * passes.input_backwards
    assert often[matrix] >= number
    assert once.total() < often.total()
    for name, gradient in wanted.items():
        assert torch.equal(got[name], gradient), name
