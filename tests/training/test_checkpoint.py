"""Stopped at any moment and started again, a run ends with the same bytes as one that was never stopped."""

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from run_methods import DROPPING, NOISE, VARIANTS
from safetensors.torch import load_file
from servers import free_ports
from support import ROOT, heed_interrupts

from components.train.settings import settle
from components.train.stage import train
from components.training import checkpoint, selection
from components.training.budget import Progress, Spent, Work
from components.training.data import read_split
from components.training.optimizers.sophia import Sophia

SHORT: dict[str, Any] = {
    "model": "tiny",
    "learning_rate": 1e-3,
    "num_updates": 6,
    "global_batch_size": 33,
    "method": "scala",
    "log_interval": 4,
    **NOISE,
}
LONG: dict[str, Any] = {
    "model": "tiny",
    "recipe": "scala",
    "num_updates": 50,
    "global_batch_size": 64,
    "perturbation_start": 0.3,
    "log_interval": 1,
}


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(folder: Path, reference: Path) -> None:
    """Weights to the byte; of the metrics all but the clock, which goes on."""
    assert weights(folder) == weights(reference)
    assert lines(folder) == lines(reference)
    digests = [json.loads((each / "manifest.json").read_text())["digest"] for each in (folder, reference)]
    assert digests[0] == digests[1]
    clock = [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]
    assert [line["update"] for line in clock] == [line["update"] for line in lines(folder)]
    seconds = [line["seconds"] for line in clock]
    assert seconds == sorted(seconds)


@contextmanager
def signalled(monkeypatch: pytest.MonkeyPatch, update: int, number: int = signal.SIGTERM) -> Iterator[None]:
    """The block's training gets the signal after `update` updates, and ends by it."""
    real = selection.rows_of_update

    def sending(at: int, *others: int) -> torch.Tensor:
        if at == update:
            os.kill(os.getpid(), number)
        return real(at, *others)

    with monkeypatch.context() as patch:
        patch.setattr(selection, "rows_of_update", sending)
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                yield
        else:
            with pytest.raises(SystemExit, match="143"):
                yield


@pytest.fixture(scope="module")
def short(tokenized: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of SHORT, never stopped."""
    folder = tmp_path_factory.mktemp("short") / "m"
    train(data_dir=tokenized("rte"), output_dir=folder, **SHORT)
    return folder


SETTINGS = {
    **{f"{name}-{optimizer}": {**VARIANTS[name], "optimizer": optimizer}
       for name in ("plain", "rdrop", "pgd", "freelb", "smart", "scala") for optimizer in ("adamw", "lamb")},
    **{f"plain-{optimizer}": {**VARIANTS["plain"], "optimizer": optimizer, "hessian_interval": 2}
       for optimizer in ("lion", "sophia", "muon", "soap", "schedule-free")},
    "scala-part": VARIANTS["scala-part"],
    "scala-label-bf16": {**VARIANTS["scala-label"], "precision": "bf16"},
    "scala-fp16": {**VARIANTS["scala"], "precision": "fp16"},
    "shared": {"perturbation_dropout": "shared", "perturbation_start": 0.0},
    "layerdrop": DROPPING["layerdrop"],
    "layerdrop-lamb": {**DROPPING["layerdrop"], "method": "plain", "optimizer": "lamb", "depth_rate": 1000.0},
}  # fmt: skip


def test_what_was_stopped_between_an_estimate_and_its_gradient_has_the_estimate_once(
    tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {**SHORT, **SETTINGS["plain-sophia"], "data_dir": tokenized("rte")}
    train(**arguments, output_dir=tmp_path / "whole")
    real, asked = Sophia.add_hessian, []

    def stopping(self: Sophia, num_terms: int, update: int) -> None:
        real(self, num_terms, update)
        asked.append((num_terms, update))
        if update == 4 and len(asked) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Sophia, "add_hessian", stopping)
    with pytest.raises(SystemExit, match="143"):
        train(**arguments, output_dir=tmp_path / "m")
    train(**arguments, output_dir=tmp_path / "m")
    assert asked == [(33, 0), (33, 2), (33, 4)]
    assert_same(tmp_path / "m", tmp_path / "whole")


@pytest.mark.parametrize("name", list(SETTINGS))
def test_what_was_stopped_ends_as_if_it_had_not_been(
    tokenized: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    arguments = {**SHORT, **SETTINGS[name], "data_dir": tokenized("rte")}
    train(**arguments, output_dir=tmp_path / "whole")
    with signalled(monkeypatch, 1):
        train(**arguments, output_dir=tmp_path / "m")
    with signalled(monkeypatch, 5, signal.SIGINT):
        train(**arguments, output_dir=tmp_path / "m")
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "m.checkpoint"}
    train(**arguments, output_dir=tmp_path / "m")
    assert_same(tmp_path / "m", tmp_path / "whole")
    assert re.findall(
        r"train: goes on at update (\d) of 6 \(checkpoint of 20..-..-..T..:..:..Z\)", capsys.readouterr().out
    ) == list("15")
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "m"}


def works(arguments: dict[str, Any]) -> list[Work]:
    """Of each update, by the passes of its method and the tokens of its examples; the tiny model has 2 layers."""
    settled, rows = settle({name: value for name, value in arguments.items() if name != "data_dir"}, 200), []
    split, training = read_split(arguments["data_dir"], "train"), settled.training
    for update in range(training.num_updates):
        passes = settled.method.passes(Progress(update, update / training.num_updates, training.seed))
        chosen = selection.rows_of_update(update, len(split), training.global_batch_size, training.seed)
        rows.append(passes.work(len(chosen), int(split.lengths[chosen].sum()), layers=2))
    return rows


@pytest.mark.parametrize("name", ["plain", "rdrop", "pgd", "freelb", "smart", "scala", "scala-label", "scala-part"])
def test_the_work_of_a_run_is_its_passes_over_its_tokens_stopped_or_not(
    tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An epoch has seven updates, the last of two examples: eight go into the next."""
    arguments = {**SHORT, **VARIANTS[name], "num_updates": 8, "data_dir": tokenized("rte")}
    expected = works(arguments)
    assert (len(set(expected)), expected[6].examples) == (8, 2)
    train(**arguments, output_dir=tmp_path / "whole")
    with signalled(monkeypatch, 4):
        train(**arguments, output_dir=tmp_path / "m")
    (stopped,) = (tmp_path / "m.checkpoint").iterdir()
    spent = json.loads((stopped / "state.json").read_text())["spent"]
    assert Spent.of(spent) == reduce(Spent.plus, expected[: spent["updates"]], Spent())
    assert spent["updates"] == 4
    train(**arguments, output_dir=tmp_path / "m")
    for folder in ("whole", "m"):
        written = lines(tmp_path / folder)
        for field in ("forwards", "input_backwards", "backwards", "tokens", "layers"):
            assert [line[field] for line in written] == [getattr(work, field) for work in expected], field
        assert [line["examples"] for line in written] == list(itertools.accumulate(work.examples for work in expected))
    assert_same(tmp_path / "m", tmp_path / "whole")


def test_the_scale_of_fp16_goes_on(tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large at first and ever again: an update that overflows is skipped and halves it, three that do not double it."""
    monkeypatch.setattr(torch.amp.GradScaler.__init__, "__defaults__", ("cuda", 2.0**32, 2.0, 0.5, 3, True))
    arguments = {**SHORT, "num_updates": 20, "precision": "fp16", "method": "plain", "optimizer": "lamb"}
    train(data_dir=tokenized("rte"), output_dir=tmp_path / "whole", **arguments)
    for update in (3, 12):
        with signalled(monkeypatch, update):
            train(data_dir=tokenized("rte"), output_dir=tmp_path / "m", **arguments)
    train(data_dir=tokenized("rte"), output_dir=tmp_path / "m", **arguments)
    assert_same(tmp_path / "m", tmp_path / "whole")
    assert 3 < sum("skipped" in line for line in lines(tmp_path / "m")) < 18


def test_the_two_newest_are_kept(
    short: Path, tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    arguments = {**SHORT, "data_dir": tokenized("rte"), "output_dir": tmp_path / "m", "checkpoint_dir": kept}
    (kept / ".update-00000002.1.partial").mkdir(parents=True)
    (kept / "mine").touch()
    with signalled(monkeypatch, 5):
        train(**arguments, checkpoint_minutes=1e-9)
    assert {path.name for path in kept.iterdir()} == {"update-00000004", "update-00000005", "mine"}
    files = {path.name for path in (kept / "update-00000005").iterdir()}
    assert files == {"state.safetensors", "state.json", "metrics.jsonl", "manifest.json"}
    train(**arguments)
    assert_same(tmp_path / "m", short)
    assert [path.name for path in kept.iterdir()] == ["mine"]


@pytest.fixture
def stopped(tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of a run that was stopped after 4 updates, with a checkpoint after 3 too."""
    arguments = {**SHORT, "data_dir": tokenized("rte"), "output_dir": tmp_path / "m", "checkpoint_dir": tmp_path / "kept"}
    with signalled(monkeypatch, 4):
        train(**arguments, checkpoint_minutes=1e-9)
    return arguments


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "metrics.jsonl", "manifest.json", "absent"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    short: Path, stopped: dict[str, Any], capsys: pytest.CaptureFixture[str], file: str
) -> None:
    newest = stopped["checkpoint_dir"] / "update-00000004"
    if file == "absent":
        (newest / "state.safetensors").unlink()
    else:
        body = bytearray((newest / file).read_bytes())
        body[len(body) // 2] ^= 4
        (newest / file).write_bytes(body[:-3] if file == "manifest.json" else body)
    train(**stopped)
    shown = capsys.readouterr().out
    assert f"train: {newest} is damaged and not used: " in shown
    assert "goes on at update 3 of 6" in shown
    assert_same(stopped["output_dir"], short)


def test_no_flipped_byte_of_its_records_is_ever_loaded(stopped: dict[str, Any]) -> None:
    """Of state.json all are found. Of the manifest, what neither names a file nor the run (hosts, seconds) may differ."""
    folder = stopped["checkpoint_dir"]
    newest = folder / "update-00000004"
    shutil.rmtree(folder / "update-00000003")
    identity = json.loads((newest / "manifest.json").read_text())["inputs"]["train"]
    whole = checkpoint.load(folder, identity)
    assert whole
    for file, may_load in (("state.json", False), ("manifest.json", True)):
        body = (newest / file).read_bytes()
        for at in random.Random(0).sample(range(len(body)), 100):
            flipped = bytearray(body)
            flipped[at] ^= 1 << at % 8
            (newest / file).write_bytes(flipped)
            loaded = checkpoint.load(folder, identity)
            if loaded:
                assert may_load
                assert (loaded.update, loaded.numbers, loaded.metrics) == (whole.update, whole.numbers, whole.metrics)
                assert all(torch.equal(tensor, whole.tensors[name]) for name, tensor in loaded.tensors.items())
        (newest / file).write_bytes(body)
    assert checkpoint.load(folder, identity)


def test_a_checkpoint_of_another_run_is_not_used(
    tokenized: Callable[[str], Path], tmp_path: Path, stopped: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    other = {**stopped, "learning_rate": 2e-3}
    train(**other)
    shown = capsys.readouterr().out
    assert f"{stopped['checkpoint_dir'] / 'update-00000004'} is of another run" in shown
    assert "goes on" not in shown
    train(**{**other, "output_dir": tmp_path / "afresh", "checkpoint_dir": None})
    assert_same(stopped["output_dir"], tmp_path / "afresh")


def test_the_cache_knows_where_the_same_command_left_off(
    short: Path, tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run has an output folder of its own there, as local runs have."""
    monkeypatch.setenv("STAGE_CACHE", str(tmp_path / "cache"))
    with signalled(monkeypatch, 3):
        train(data_dir=tokenized("rte"), output_dir=tmp_path / "first" / "m", **SHORT)
    assert list((tmp_path / "first").iterdir()) == []
    (kept,) = (tmp_path / "cache").iterdir()
    train(data_dir=tokenized("rte"), output_dir=tmp_path / "second" / "m", **{**SHORT, "seed": 1})
    assert kept.exists()
    train(data_dir=tokenized("rte"), output_dir=tmp_path / "third" / "m", **SHORT)
    assert not kept.exists()
    assert_same(tmp_path / "third" / "m", short)


def test_none_are_written_or_read_with_0_minutes(
    short: Path, stopped: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in stopped["checkpoint_dir"].rglob("*")}
    with signalled(monkeypatch, 5):
        train(**stopped, checkpoint_minutes=0)
    train(**stopped, checkpoint_minutes=0)
    assert "goes on" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in stopped["checkpoint_dir"].rglob("*")} == before
    assert_same(stopped["output_dir"], short)


def test_a_full_disk_ends_no_run(
    short: Path, tokenized: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    train(
        data_dir=tokenized("rte"), output_dir=tmp_path / "m", checkpoint_dir=tmp_path / "file" / "kept",
        checkpoint_minutes=1e-9, **SHORT,
    )  # fmt: skip
    assert "train: no checkpoint after update 4, going on without: " in capsys.readouterr().out
    assert_same(tmp_path / "m", short)


def command(num_ranks: int, data_dir: Path, output_dir: Path, *more: str) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)] if num_ranks > 1 else []
    arguments = {"data_dir": data_dir, "output_dir": output_dir, **LONG}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()]
    return [sys.executable, *launcher, "-m", "components.train", *flags, *more]


def interrupt(words: list[str], number: int, at: int, delay: float = 0) -> tuple[int, str]:
    """(exit code, what it said) of a training that gets the signal `delay` seconds after it says `update AT`, if ever."""
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heed_interrupts
    ) as process:
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith(f"update {at}:"):
                time.sleep(delay)
                process.send_signal(number)
        process.wait(timeout=60)
    return process.returncode, "".join(said)


@pytest.fixture(scope="module")
def long(tokenized: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Ranks -> of LONG, never stopped. Made once."""
    folder = tmp_path_factory.mktemp("long")

    def make(num_ranks: int) -> Path:
        output_dir = folder / str(num_ranks)
        if num_ranks == 1:
            train(data_dir=tokenized("sst2"), output_dir=output_dir, **LONG)
        elif not output_dir.exists():
            done = subprocess.run(command(num_ranks, tokenized("sst2"), output_dir), cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        return output_dir

    return make


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    long: Callable[[int], Path], tokenized: Callable[[str], Path], tmp_path: Path
) -> None:
    words = command(1, tokenized("sst2"), tmp_path / "m", "--checkpoint-minutes", "1e-9")
    code, _ = interrupt(words, signal.SIGKILL, 20)
    assert code == -signal.SIGKILL
    code, said = interrupt(words, signal.SIGKILL, 0)
    assert code == 0, said
    (update,) = re.findall(r"goes on at update (\d+) of 50", said)
    assert int(update) >= 18
    assert_same(tmp_path / "m", long(1))
    assert not (tmp_path / "m.checkpoint").exists()


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_wherever_a_signal_comes_the_same_bytes_come_out(
    long: Callable[[int], Path], tokenized: Callable[[str], Path], tmp_path: Path, num_ranks: int, number: signal.Signals
) -> None:
    """torchrun hands it on to every rank."""
    drawn = random.Random(num_ranks)
    words = command(num_ranks, tokenized("sst2"), tmp_path / "m")
    at = 0
    for least in (1, 12, 25):
        at = max(at, least) + drawn.randint(1, 5)
        code, said = interrupt(words, number, at, delay=drawn.uniform(0, 0.2))
        assert code == (128 + number if num_ranks == 1 else 1), said
        stopped = max(int(path.name[-8:]) for path in (tmp_path / "m.checkpoint").iterdir())
        assert stopped >= at, said
        at = stopped
    code, said = interrupt(words, number, 0)
    assert (code, f"goes on at update {at} of 50" in said) == (0, True), said
    assert_same(tmp_path / "m", long(num_ranks))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.slow
def test_a_rank_that_outlives_another_saves_its_state_and_says_try_again(
    long: Callable[[int], Path], tokenized: Callable[[str], Path], tmp_path: Path
) -> None:
    """On another node, that is, where no torchrun ends it."""
    (port,) = free_ports(1)
    group = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = command(1, tokenized("sst2"), tmp_path / "m")
    pipe = {"cwd": ROOT, "stderr": subprocess.PIPE, "text": True}
    first, other = (subprocess.Popen(words, env={**group, "RANK": rank}, **pipe) for rank in "01")  # type: ignore[call-overload]
    with first, other:
        while not first.stderr.readline().startswith("update 20:"):
            assert first.poll() is None
        other.kill()
        _, said = first.communicate(timeout=60)
    assert (first.returncode, "error: another rank has left: " in said) == (75, True), said
    code, text = interrupt(command(2, tokenized("sst2"), tmp_path / "m"), signal.SIGTERM, 0)
    assert (code, "goes on at update 2" in text) == (0, True), text
    assert_same(tmp_path / "m", long(2))


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_it_goes_on_with_another_number_of_ranks(
    long: Callable[[int], Path], tokenized: Callable[[str], Path], tmp_path: Path, before: int, after: int
) -> None:
    """The same updates; what the ranks drop is theirs, and sums are rounded otherwise."""
    interrupt(command(before, tokenized("sst2"), tmp_path / "m"), signal.SIGTERM, 20)
    code, said = interrupt(command(after, tokenized("sst2"), tmp_path / "m"), signal.SIGTERM, 0)
    assert code == 0, said
    written, reference = lines(tmp_path / "m"), lines(long(1))
    assert [line["examples"] for line in written] == [line["examples"] for line in reference]
    assert [line["loss"] for line in written] == pytest.approx([line["loss"] for line in reference], abs=0.05)
    assert load_file(tmp_path / "m" / "model.safetensors").keys() == load_file(long(1) / "model.safetensors").keys()
