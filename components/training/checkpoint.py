"""What a run needs to go on where it was stopped. The two newest states are kept, a folder each:

    update-00000120/           after 120 updates
        state.safetensors      the parameters and the optimizer's tensors
        state.json             the optimizer's and the loss scaler's numbers, the clock, tokens at a time
        metrics.jsonl          as far as it was
        manifest.json          the digests of these files, and the identity of what is being trained

There is no more to it: batch, dropout and noise of an update are functions of the seed and its number. A folder appears whole
or not at all, and one that is damaged or belongs to another run is not used. MiniLM with AdamW: 273 MB, about a CPU second.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.artifacts.folders import CACHE, Artifact, read_manifest
from components.artifacts.names import TRAINING_LOG
from components.errors import UserError
from components.training.log import say
from components.training.ranks import Ranks

TENSORS = "state.safetensors"
NUMBERS = "state.json"
STAGE = "checkpoint"
NUM_KEPT = 2
DIGITS = "[0-9]" * 8


@dataclass(frozen=True)
class State:
    """After `update` updates.  numbers: what JSON can hold.  metrics: the lines of metrics.jsonl.  saved: when."""

    update: int
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    metrics: str
    saved: str = ""


def default_folder(artifact: Artifact) -> Path:
    """Where the same command finds it again: in the cache where there is one, else beside the output."""
    if CACHE in os.environ:
        return Path(os.environ[CACHE]) / f"{artifact.identity}.checkpoint"
    return artifact.path.with_name(f"{artifact.path.name}.checkpoint")


def capture(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, numbers) of a State. The tensors are the live ones, not copies."""
    held = optimizer.state_dict()
    tensors = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    for index, values in held["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    groups = [{name: value for name, value in group.items() if name != "params"} for group in held["param_groups"]]
    return tensors, {"groups": groups, "scaler": scaler.state_dict()}


def resume(
    folder: Path | None,
    identity: str,
    ranks: Ranks,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> State | None:
    """Put the newest state, if there is one, into a model and an optimizer just built, on all ranks. Its tensors are let go.

    Args:
        folder: None on all ranks but the first, which tells the others.
    """
    state = share(load(folder, identity) if folder else None, ranks)
    if not state:
        return None
    restore(state, model, optimizer, scaler)
    return replace(state, tensors={})


def restore(state: State, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    """The reverse of `capture`."""
    held = optimizer.state_dict()
    held["param_groups"] = [group | saved for group, saved in zip(held["param_groups"], state.numbers["groups"], strict=True)]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state.tensors[f"model.{name}"])
            device = parameter.device
    for name, tensor in state.tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":  # copied: what safetensors read lies in its file, and not as torch aligns memory
            index, _, field = rest.partition(".")
            held["state"].setdefault(int(index), {})[field] = tensor.to(device, copy=True)
    optimizer.load_state_dict(held)
    if scaler.is_enabled() and state.numbers["scaler"]:
        scaler.load_state_dict(state.numbers["scaler"])


def save(folder: Path, identity: str, state: State) -> None:
    """Write it beside the one before. A disk that is full is said, and ends no run."""
    path = folder / f"update-{state.update:08d}"
    artifact = Artifact(path, STAGE, {"update": state.update}, {"train": identity}, reusable=False)
    try:
        shutil.rmtree(path, ignore_errors=True)  # a damaged one
        with artifact.building() as unfinished:
            save_file(state.tensors, unfinished / TENSORS)
            (unfinished / NUMBERS).write_text(json.dumps({"update": state.update, **state.numbers}))
            (unfinished / TRAINING_LOG).write_text(state.metrics)
    except (OSError, SafetensorError) as error:
        say(f"train: no checkpoint after update {state.update}, going on without: {error}")
        return
    _remove(folder, _newest_first(folder, up_to=path.name)[:NUM_KEPT])


def load(folder: Path, identity: str) -> State | None:
    """The newest whole one of this run; what cannot be used is named."""
    for path in _newest_first(folder):
        try:
            manifest = read_manifest(path, STAGE)
            if manifest["inputs"] != {"train": identity}:
                say(f"train: {path} is of another run (parameters, data, code or versions differ): not used")
                continue
            numbers = json.loads((path / NUMBERS).read_text())
            metrics = (path / TRAINING_LOG).read_text()
            return State(numbers["update"], load_file(path / TENSORS), numbers, metrics, manifest["made_by"]["created"])
        except (UserError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            say(f"train: {path} is damaged and not used: {error}")
    return None


def share(state: State | None, ranks: Ranks) -> State | None:
    """The first rank's state, on all ranks: none but the first needs to see its folder."""
    if ranks.count == 1:
        return state
    shapes = state and {name: (tensor.shape, tensor.dtype) for name, tensor in state.tensors.items()}
    told: list[Any] = [state and (state.update, state.numbers, state.metrics, state.saved), shapes]
    dist.broadcast_object_list(told)
    if told[0] is None:
        return None
    tensors = {}
    for name, (shape, dtype) in told[1].items():
        tensors[name] = state.tensors[name].to(ranks.device) if state else torch.empty(shape, dtype=dtype, device=ranks.device)
        dist.broadcast(tensors[name], 0)
    update, *others = told[0]
    return State(update, tensors, *others)


@contextmanager
def kept_until_done(folder: Path | None) -> Iterator[None]:
    """When the block ends well, its checkpoints go."""
    yield
    if folder and folder.is_dir():
        _remove(folder, [])
        if not any(folder.iterdir()):
            folder.rmdir()


def _newest_first(folder: Path, up_to: str = "update-99999999") -> list[Path]:
    return sorted((path for path in folder.glob(f"update-{DIGITS}") if path.name <= up_to), reverse=True)


def _remove(folder: Path, kept: list[Path]) -> None:
    """All checkpoints but those `kept`, and what a killed process has left half-written."""
    for path in (*_newest_first(folder), *folder.glob(f".update-{DIGITS}.*.partial")):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
