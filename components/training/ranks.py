"""This process among its peers."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from components.training.interrupts import ended_at_once


@dataclass(frozen=True)
class Ranks:
    rank: int
    count: int
    device: torch.device


@contextlib.contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the process group that torchrun describes in the environment, if any: NCCL on GPUs, else gloo."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if count == 1:
        yield Ranks(0, 1, device)
        return
    with ended_at_once():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()
