"""This process among its peers."""

import contextlib
import datetime
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from components.errors import UserError
from components.training.interrupts import ended_at_once

TIMEOUT = datetime.timedelta(minutes=30)
"""That a rank waits for its peers: one of them may read, write or compile something in the meantime."""


@dataclass(frozen=True)
class Ranks:
    rank: int
    count: int
    device: torch.device

    def least(self, number: int) -> int:
        """Of the numbers that the ranks give; each of them must ask."""
        if self.count == 1:
            return number
        of_all = torch.tensor(number, device=self.device)
        dist.all_reduce(of_all, dist.ReduceOp.MIN)
        return int(of_all)


@contextlib.contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the process group that torchrun describes in the environment, if any: NCCL on GPUs, else gloo.

    It is left only by ranks that have ended well: leaving is a meeting of all of them (NCCL's), to which the peers of one that
    failed would not come. That one is to `leave` at once.

    Raises:
        UserError: there are more ranks on this machine than GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        if (there := torch.cuda.device_count()) <= (device.index or 0):
            each = "num_processes (num_gpus_per_worker of a training job)"
            raise UserError(f"rank {device.index} of this machine has no GPU, of which there are {there}: give {each} {there}")
        torch.cuda.set_device(device)
    if count == 1:
        yield Ranks(0, 1, device)
        return
    with ended_at_once():
        on_gpu = device.type == "cuda"
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=TIMEOUT, device_id=device if on_gpu else None)
    yield Ranks(dist.get_rank(), count, device)
    dist.destroy_process_group()


def leave(error: BaseException) -> None:
    """End this process, which failed while it was among others, with nothing of what Python does at its end: threads of the
    process group would be waited for. Returns where it is alone.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    code = error.code if isinstance(error, SystemExit) else 1
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)
