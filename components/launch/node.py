"""A job's part in one pod: fetch the inputs, run the ranks of a stage, store what comes out.

The operator says by PET_* variables, which torchrun reads itself, how many nodes and ranks there are and where they meet. All
nodes run the same command. Which of them has rank 0, and so writes, may be known only when it has written.

Everything that is written here lies below one scratch folder: the rest of the file system may be read-only.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from components import cli, errors
from components.artifacts.folders import FILE, Artifact
from components.image import take_mounted_settings
from components.launch import relay
from components.launch.checkpoints import forget, synced
from components.launch.torchrun import threads_each
from components.storage import s3, transfer

TERMINATION_LOG = Path("/dev/termination-log")
"""What a container writes there, Kubernetes shows as the reason why it ended."""
LONGEST_MESSAGE = 4000
SHUTDOWN_SECONDS = 60
"""That ranks have, when the pod is stopped, to write a last checkpoint. Another part of its grace period goes to storing it."""
OF_THE_POD = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""The operator counts pods with them, torchrun ranks."""


def node(
    *, stage: str, settings: str, inputs: list[str], output_uri: str, checkpoint_uri: str = "", scratch_dir: Path | None = None
) -> None:
    """Run this node's ranks of a stage on folders from a store, and put there what comes out.

    Args:
        stage: components.STAGE; it takes --settings, --NAME-dir for each input, --output-dir and --checkpoint-dir.
        settings: The stage's, as components.resolve writes them.
        inputs: NAME=URI of each: what an earlier stage wrote, as s3://BUCKET/FOLDER or a folder on a shared volume.
        output_uri: Where the output goes. If it is there already, nothing is done.
        checkpoint_uri: Where checkpoints go, until the output is there, in a folder for each training that could come out of
            it, so that whoever trains the same finds them; empty keeps them on this node.
        scratch_dir: Folder for everything on this node; what is there is used again. Default: a temporary one.
    """
    with _termination_message(), _scratch(scratch_dir) as folder:
        take_mounted_settings()
        os.environ |= s3.environment()
        for name in OF_THE_POD:
            os.environ.pop(name, None)
        output, checkpoints = folder / "output", folder / "checkpoints"
        named = (given.partition("=") for given in inputs)
        folders = {f"{name}_dir": transfer.local(uri, folder) for name, _, uri in named} | {"output_dir": output}
        planned: Artifact = importlib.import_module(f"components.{stage}.stage").planned(settings=settings, **folders)
        job, place = os.environ.get("JOB_NAME", ""), checkpoint_uri and f"{checkpoint_uri}/{planned.identity}"
        if not _is_there(output_uri, planned):
            least, _, most = os.environ.get("PET_NNODES", "1").partition(":")
            is_elastic = bool(most) and least != most
            kept = synced(place, checkpoints, is_elastic, job) if place else contextlib.nullcontext()
            arguments = {"settings": settings, **folders, "checkpoint_dir": checkpoints}
            with kept, relay.published(output, output_uri):
                _run_ranks(stage, [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()], folder)
            if not output.exists():
                return
            transfer.store(output, output_uri)
        transfer.remove(relay.place(output_uri))
        if place:
            forget(place, job)


def _is_there(uri: str, artifact: Artifact) -> bool:
    """Whether the very result that `artifact` will be is at `uri`, whole.

    Raises:
        UserError: another one is.
    """
    text = transfer.read_text(f"{uri}/{FILE}")
    if text is None:
        return False
    try:
        manifest = dict(json.loads(text))
    except (ValueError, TypeError):
        manifest = {}  # somebody else's
    if different := [name for name, value in artifact.key.items() if manifest.get(name) != value]:
        raise errors.UserError(f"{uri} was made with other {', '.join(different)}: choose another --output-uri or delete it")
    print(f"{artifact.stage}: cached in {uri}", flush=True)
    return True


def _run_ranks(stage: str, flags: Sequence[str], folder: Path) -> None:
    """This node's ranks, to their end.

    Raises:
        UserError, TryAgainError, FailedError: what the first rank that failed said.
    """
    record = folder / errors.RECORD
    record.unlink(missing_ok=True)
    per_node = os.environ.get("PET_NPROC_PER_NODE", "1")
    threads = {"OMP_NUM_THREADS": str(threads_each(int(per_node)))} if per_node.isdigit() else {}
    patience = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS)}
    environment = {**threads, **patience, **os.environ, "TORCHELASTIC_ERROR_FILE": str(record)}
    command = [sys.executable, "-m", "components.launch.ranks", "-m", f"components.{stage}", *flags]
    with subprocess.Popen(command, env=environment) as process:
        try:
            if code := process.wait():
                errors.reraise(record, code)
        finally:
            _end(process, float(environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) + 10)


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Nothing of it is left: ranks have sessions of their own, and would outlive a torchrun that is killed."""
    if process.poll() is not None:
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    ranks = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    for each in ranks:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.kill()


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """The given folder, or a temporary one, for whatever this process and its ranks write."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="node-") as made, _scratch(Path(made)):
            yield Path(made)
        return
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    os.environ.setdefault("HF_HOME", str(folder / "huggingface"))
    yield folder


@contextmanager
def _termination_message() -> Iterator[None]:
    """Why the block failed, in a line, where Kubernetes looks for it."""
    try:
        yield
    except BaseException as error:
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, errors.StageError):
            message = str(error)
        elif isinstance(error, SystemExit):
            message = f"stopped with {error.code}"
        if os.access(TERMINATION_LOG, os.W_OK):
            TERMINATION_LOG.write_text(message[:LONGEST_MESSAGE])
        raise


if __name__ == "__main__":
    cli.run(node, "python -m components.launch.node")
