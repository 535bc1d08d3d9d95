"""The arithmetic of the matrix products. Weights, losses, divergences, norms and noise are fp32 (fp64 with `fp64`) anyway."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch

from components.parameters import Precision

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Arithmetic:
    name: Literal["bf16", "fp16", "fp32", "fp64"]
    device: torch.device
    scaler: torch.amp.GradScaler = field(init=False)
    """Does nothing but with fp16, whose gradients would underflow: it scales the loss, and skips updates that overflow."""

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, AUTOCAST.get(self.name, torch.bfloat16), enabled=self.name in AUTOCAST)

    @contextlib.contextmanager
    def cast_once(self) -> Iterator[None]:
        """Within the block, in which no weight may move, `autocast` casts each weight once, not once for every `autocast`."""
        torch.autocast_increment_nesting()
        try:
            yield
        finally:
            if torch.autocast_decrement_nesting() == 0:
                torch.clear_autocast_cache()


def choose_arithmetic(precision: Precision, device: torch.device) -> Arithmetic:
    """`auto` is bf16 where the processor has it, else fp16 on a GPU, else fp32."""
    if precision != "auto":
        return Arithmetic(precision, device)
    if has_bf16(device):
        return Arithmetic("bf16", device)
    return Arithmetic("fp16" if device.type == "cuda" else "fp32", device)


def has_bf16(device: torch.device) -> bool:
    """Does the processor multiply bf16 matrices itself? Where it does not, bf16 is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
