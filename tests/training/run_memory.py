"""The memory of a training whose linear layers are oneDNN's, as 16-bit ones are where the processor has units for them.

run_memory.py DATA_DIR OUTPUT_DIR NUM_UPDATES FILLED: prints JSON, updates -> resident MiB.

oneDNN's fp32 kernels behave as its 16-bit ones do, and any x86 processor has them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.modeling import attention, packing
from components.train.stage import train
from components.training import data
from components.training.log import Agreed, MetricsLog

real = MetricsLog.end_update
product = torch.ops.mkldnn._linear_pointwise


class Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(states, weight)
        output: Tensor = product(states, weight, bias, "none", [], "")
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        states, weight = ctx.saved_tensors
        gradient, rows = gradient.reshape(-1, gradient.shape[-1]).contiguous(), states.reshape(-1, states.shape[-1])
        to_states = product(gradient, weight.t().contiguous(), None, "none", [], "").view(states.shape)
        return to_states, product(gradient.t().contiguous(), rows.t().contiguous(), None, "none", [], ""), gradient.sum(0)


def resident() -> int:
    """MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20


def memory(data_dir: Path, output_dir: Path, num_updates: int, is_filled: bool) -> dict[int, int]:
    found = {}

    def end_update(self: MetricsLog, update: int, *args: Any, **more: Any) -> Agreed:
        if update in (num_updates // 10, num_updates):
            found[update] = resident()
        return real(self, update, *args, **more)

    for module in (packing, attention, data):  # fp32 is not filled up by itself
        module.filled = lambda number, multiple, device: -(-number // multiple) * multiple if is_filled else number  # type: ignore[attr-defined]
    setattr(nn.Linear, "forward", lambda self, states: Linear.apply(states.contiguous(), self.weight, self.bias))  # noqa: B010
    setattr(MetricsLog, "end_update", end_update)  # noqa: B010
    train(
        data_dir=data_dir, model="tiny", output_dir=output_dir, num_updates=num_updates, global_batch_size=64,
        learning_rate=1e-4, precision="fp32", checkpoint_minutes=0.0,
    )  # fmt: skip
    return found


if __name__ == "__main__":
    _, source, target, count, filling = sys.argv
    print(json.dumps(memory(Path(source), Path(target), int(count), filling == "True")))
