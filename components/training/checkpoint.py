"""What a run needs to go on where it was stopped. The two newest states are kept, a folder each:

    update-00000120/           after 120 updates
        state.safetensors      the parameters and the optimizer's tensors
        state.json             numbers of optimizer, loss scaler and selection; what is spent, the clock, tokens at once
        metrics.jsonl          as far as it was
        manifest.json          the digests of these files, and the identity of what is being trained

There is no more to it: batch, dropout and noise of an update are functions of the seed and its number. A folder appears whole
or not at all, and one that is damaged or belongs to another run is not used. MiniLM with AdamW: 273 MB, about a CPU second.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.artifacts.folders import CACHE, Artifact, read_manifest
from components.artifacts.names import TRAINING_LOG
from components.errors import UserError
from components.training.budget import Spent
from components.training.growth import Growth, grow
from components.training.log import MetricsLog, say
from components.training.ranks import Ranks
from components.training.run import Run

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


def capture(run: Run, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, numbers) of a State. The tensors are the live ones, not copies."""
    held = run.optimizer.state_dict()
    tensors = {f"model.{name}": parameter.detach() for name, parameter in run.network.named_parameters()}
    for index, values in held["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    numbers = {
        "groups": [{name: value for name, value in group.items() if name != "params"} for group in held["param_groups"]],
        "scaler": run.arithmetic.scaler.state_dict(),
        "selection": run.selection.state(),
        "spent": run.spent.as_dict(),
        "grown": run.grown,
        "since": run.since.as_dict(),
        "tokens": {device.type: run.tokens},
    }
    return tensors, numbers


def restore(state: State, run: Run, device: torch.device, growth: Growth | None = None) -> None:
    """The reverse of `capture`, into a run just built, which grows first to the layers that it had. Tokens at once are taken
    over where the device is of the same kind.
    """
    if growth:
        grow(run, growth, state.numbers["grown"])
    held = run.optimizer.state_dict()
    held["param_groups"] = [group | saved for group, saved in zip(held["param_groups"], state.numbers["groups"], strict=True)]
    with torch.no_grad():
        for name, parameter in run.network.named_parameters():
            parameter.copy_(state.tensors[f"model.{name}"])
    for name, tensor in state.tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":  # copied: what safetensors read lies in its file, and not as torch aligns memory
            index, _, field = rest.partition(".")
            held["state"].setdefault(int(index), {})[field] = tensor.to(device, copy=True)
    run.optimizer.load_state_dict(held)
    scaler = run.arithmetic.scaler
    if scaler.is_enabled() and state.numbers["scaler"]:
        scaler.load_state_dict(state.numbers["scaler"])
    run.selection.restore(state.numbers["selection"])
    run.spent, run.since = Spent.of(state.numbers["spent"]), Spent.of(state.numbers["since"])
    run.tokens = state.numbers["tokens"].get(device.type, 0) or run.tokens


@dataclass
class Checkpoints:
    """Those of one training, which all ranks may ask for and the first one writes.

    folder: None where there are to be none, and on all ranks but the first.  identity: of what is being trained.  minutes:
    between two of them.
    """

    folder: Path | None
    identity: str
    ranks: Ranks
    minutes: float
    saved: int = 0
    saved_at: float = 0.0

    def resume(self, run: Run, growth: Growth | None = None) -> State | None:
        """Put the newest state, if there is one, into a run just built, on all ranks. Its tensors are let go."""
        self.saved_at = time.monotonic()
        state = share(load(self.folder, self.identity) if self.folder else None, self.ranks)
        if not state:
            return None
        restore(state, run, self.ranks.device, growth)
        self.saved = run.done
        return replace(state, tensors={})

    def save_if_due(self, run: Run, log: MetricsLog) -> None:
        if self.folder and log.is_complete and time.monotonic() - self.saved_at > 60 * self.minutes:
            self.save(run, log)

    def save(self, run: Run, log: MetricsLog) -> None:
        """The state after the run's last update, unless it is there already or the log has a gap."""
        if not self.folder or not log.is_complete or run.done <= self.saved:
            return
        log.flush()
        tensors, numbers = capture(run, self.ranks.device)
        save(self.folder, self.identity, State(run.done, tensors, {**numbers, "seconds": log.seconds}, log.text()))
        self.saved, self.saved_at = run.done, time.monotonic()


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
    sent: list[Any] = [state and (state.update, state.numbers, state.metrics, state.saved), shapes]
    dist.broadcast_object_list(sent)
    if sent[0] is None:
        return None
    tensors = {}
    for name, (shape, dtype) in sent[1].items():
        tensors[name] = state.tensors[name].to(ranks.device) if state else torch.empty(shape, dtype=dtype, device=ranks.device)
        dist.broadcast(tensors[name], 0)
    update, *others = sent[0]
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
