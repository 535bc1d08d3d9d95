"""What the pods of a training job run, with a real SeaweedFS, real torchruns and the operator's variables."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from launcher import PLACEMENT
from proxy import proxy_to
from servers import BUCKET, free_ports, s3_server
from support import ROOT

from components import cli
from components.artifacts.folders import FILE, Artifact
from components.errors import UserError
from components.launch import checkpoints, start, torchrun
from components.launch.placement import Placement, Places
from components.launch.torchrun import launched
from components.storage import transfer
from components.train.settings import Training

GIVEN = {"model": "tiny", "method": "scala", "learning_rate": 1e-3, "num_updates": 3, "global_batch_size": 30, "seed": 3}
DATA = f"s3://{BUCKET}/data"

ENTRY = """
import sys
from pathlib import Path
from components import cli
from components.launch import node
node.TERMINATION_LOG = Path(sys.argv.pop(1))
cli.run(node.node, "node")
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tokenized: Callable[[str], Path]) -> Iterator[dict[str, str]]:
    """The store's settings, in the environment too; the data are in it."""
    with s3_server(tmp_path_factory.mktemp("s3")) as environment, pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patched.delenv(name)
        for name, value in environment.items():
            patched.setenv(name, value)
        transfer.store(tokenized("rte"), DATA)
        yield environment


@contextmanager
def started(folder: Path, *arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A node, as a pod starts it: its output is a pipe, its temporary files and termination message are in `folder`."""
    folder.mkdir()
    (folder / "tmp").mkdir()
    (folder / "message").touch()
    command = [sys.executable, "-c", ENTRY, folder / "message", *arguments]
    known = {**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1", **environment}
    with subprocess.Popen(
        [str(word) for word in command], cwd=ROOT, env=known, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def settings_of(**given: object) -> str:
    """A training's, as the step hands them on."""
    values = {**vars(cli.pick(Training, GIVEN)), **GIVEN, **given}
    return json.dumps(values)


def arguments_of(output: str, settings: str, data: str = DATA) -> list[str]:
    """A node's, but for the checkpoints."""
    return ["--stage=train", f"--settings={settings}", f"--inputs=data={data}", f"--output-uri={output}"]


@pytest.mark.slow
def test_two_nodes_make_the_same_model_as_four_ranks_here(
    store: dict[str, str], tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever comes once more finds it made."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folders = {"data_dir": tokenized("rte"), "output_dir": tmp_path / "here"}
    with launched("train", {"settings": settings_of(), **folders}, 4) as wait:
        wait()
    output = f"s3://{BUCKET}/two/model"
    (port,) = free_ports(1)
    meeting = {"PET_RDZV_BACKEND": "c10d", "PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "PET_LOCAL_ADDR": "127.0.0.1"}
    shape = {"PET_NNODES": "2:2", "PET_NPROC_PER_NODE": "2", "PET_MAX_RESTARTS": "0", "PET_RDZV_ID": "two"}
    kept = f"--checkpoint-uri={output}.checkpoints"
    asked = [*arguments_of(output, settings_of()), kept]
    with (
        started(tmp_path / "a", *asked, **meeting, **shape, JOB_NAME="two") as a,
        started(tmp_path / "b", *asked, **meeting, **shape, JOB_NAME="two") as b,
    ):
        said = [process.communicate(timeout=240)[0] for process in (a, b)]
    assert [a.returncode, b.returncode] == [0, 0], said
    assert [f"stored {output}" in text for text in said].count(True) == 1
    transfer.fetch(output, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (tmp_path / "here" / "model.safetensors").read_bytes()
    manifest = json.loads((tmp_path / "model" / FILE).read_text())
    assert manifest["origins"]["data"]["uri"] == DATA
    assert manifest["made_by"]["job_name"] == "two"
    assert [list((tmp_path / name / "tmp").iterdir()) for name in "ab"] == [[], []]
    with started(tmp_path / "c", *asked, **meeting, **shape) as c:
        assert f"train: cached in {output}" in c.communicate(timeout=120)[0]
    assert c.returncode == 0
    with started(tmp_path / "d", *arguments_of(output, settings_of(seed=4)), kept, **meeting, **shape) as d:
        assert f"{output} was made with other parameters" in d.communicate(timeout=120)[0]
    assert d.returncode == 2


def test_a_stopped_node_ends_with_143_and_leaves_nothing(store: dict[str, str], tmp_path: Path) -> None:
    output = f"s3://{BUCKET}/stopped/model"
    (port,) = free_ports(1)
    of_the_operator = {"PET_NNODES": "1", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    of_the_pod = {"RANK": "0", "WORLD_SIZE": "1", "PET_NPROC_PER_NODE": "2"}
    arguments = arguments_of(output, settings_of(num_updates=100_000, log_interval=1))
    with started(tmp_path / "a", *arguments, **of_the_operator, **of_the_pod) as process:
        assert process.stdout is not None
        said = ""
        while "update" not in said.rpartition("rank(s)")[2]:
            said += (line := process.stdout.readline())
            assert line, said
        running = psutil.Process(process.pid).children(recursive=True)
        assert len(running) == 3  # torchrun and two ranks
        process.send_signal(signal.SIGTERM)
        said += process.communicate(timeout=90)[0]
    assert process.returncode == 143, said
    assert not [each for each in running if each.is_running()]
    assert list((tmp_path / "a" / "tmp").iterdir()) == []
    assert transfer.read_text(f"{output}/{FILE}") is None
    assert "143" in (tmp_path / "a" / "message").read_text()


def test_a_node_that_waits_for_the_others_ends_at_once(store: dict[str, str], tmp_path: Path) -> None:
    """torchrun's rendezvous takes no notice of a SIGTERM by itself."""
    (port,) = free_ports(1)
    meeting = {"PET_RDZV_BACKEND": "c10d", "PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "PET_LOCAL_ADDR": "127.0.0.1"}
    shape = {"PET_NNODES": "2:2", "PET_NPROC_PER_NODE": "1", "PET_MAX_RESTARTS": "0", "PET_RDZV_ID": "alone"}
    with started(tmp_path / "a", *arguments_of(f"s3://{BUCKET}/alone/model", settings_of()), **meeting, **shape) as process:
        torchrun = ["-m", "components.launch.ranks"]
        wait_for(lambda: any(torchrun == each.cmdline()[1:3] for each in psutil.Process(process.pid).children()))
        time.sleep(5)  # until it waits; what is sent before that ends it too
        stopped = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 143, said
    assert time.monotonic() - stopped < 10
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_run_that_was_stopped_and_sent_again_goes_on_to_the_same_bytes(
    store: dict[str, str], tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another job, whose output goes elsewhere; what the store keeps is all that it needs."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = settings_of(num_updates=400, log_interval=1)
    folders = {"data_dir": tokenized("rte"), "output_dir": tmp_path / "here"}
    with launched("train", {"settings": settings, **folders}, 1) as wait:
        wait()
    kept = f"s3://{BUCKET}/resumed/checkpoints"

    def run(name: str, settings: str) -> AbstractContextManager[subprocess.Popen[str]]:
        asked = [*arguments_of(f"s3://{BUCKET}/resumed/{name}/model", settings), f"--checkpoint-uri={kept}"]
        return started(tmp_path / name, *asked, PET_NNODES="1", PET_NPROC_PER_NODE="1", JOB_NAME=name)

    with run("run-1", settings) as process:
        said = stopped_in_training(process)
    assert process.returncode == 143, said
    (latest,) = (name for name in transfer.digests(kept) if name.endswith("latest"))
    assert (transfer.read_text(f"{kept}/{latest}") or "").startswith("update-")
    with run("other-settings", settings_of(num_updates=400, log_interval=1, seed=4)) as process:
        said = stopped_in_training(process)
    assert "train: goes on" not in said
    with run("run-2", settings) as process:
        said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    assert "train: goes on at update" in said
    transfer.fetch(f"s3://{BUCKET}/resumed/run-2/model", tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (tmp_path / "here" / "model.safetensors").read_bytes()
    (left,) = {name.partition("/")[0] for name in transfer.digests(kept)}
    assert left != latest.partition("/")[0]  # those of the other settings


def stopped_in_training(process: subprocess.Popen[str]) -> str:
    """What it said until its end, with SIGTERM after its first update."""
    assert process.stdout is not None
    said = ""
    while "update" not in said.rpartition("rank(s)")[2]:
        said += (line := process.stdout.readline())
        assert line, said
    process.send_signal(signal.SIGTERM)
    return said + process.communicate(timeout=90)[0]


def test_ranks_here_that_were_killed_are_started_again_and_go_on(
    tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = settings_of(num_updates=60, checkpoint_minutes=1e-4)
    places = Places({"data": (tokenized("rte"), "")}, (tmp_path / "model", ""), (tmp_path / "logs", ""))
    again = Placement(**PLACEMENT | {"launcher": "torchrun", "num_processes": 2, "attempts": 2})
    with start.launched("train", settings, again, places) as wait:

        def kill_one() -> None:
            wait_for(lambda: bool(list(tmp_path.glob("model.checkpoint/update-*"))))
            ours = {each: each.cmdline() for each in psutil.Process().children(recursive=True)}
            ranks = [each for each, words in ours.items() if words[2:4] == ["-m", "components.train"]]
            ranks[1].kill()

        killer = threading.Thread(target=kill_one)
        killer.start()
        wait()
        killer.join()
    said = capfd.readouterr().out
    assert re.search(r"train: rank \d was killed by SIGKILL .*; attempt 2 of 2 in 0 s", said)
    assert "train: goes on at update" in said
    assert (tmp_path / "model" / FILE).is_file()
    with start.launched("train", settings, again, replace(places, output=(tmp_path / "whole", ""))) as wait:
        wait()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "whole")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_what_a_rank_has_to_say_is_the_nodes_last_word(store: dict[str, str], tmp_path: Path) -> None:
    arguments = arguments_of(f"s3://{BUCKET}/refused", settings_of(num_updates=3, warmup_updates=4))
    with started(tmp_path / "a", *arguments, RANK="1") as process:
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 2, said
    line = "the warm-up takes 4 updates, the whole run has 3: shorten the warm-up"  # which no step before could know
    assert line in said.splitlines()[-1]
    assert line in (tmp_path / "a" / "message").read_text()
    assert store["AWS_SECRET_ACCESS_KEY"] not in said


@pytest.mark.parametrize(
    ("given", "environment", "code", "says"),
    [
        ({"data": f"s3://{BUCKET}/nothing"}, {}, 2, f"there is nothing at s3://{BUCKET}/nothing"),
        ({"settings": settings_of(no_such_name=1)}, {}, 2, "no_such_name"),
        ({"settings": settings_of(perturbation_radius=-1.0)}, {}, 2, "perturbation_radius is -1.0: give 0 or more"),
        ({"settings": '{"model": "tiny"}'}, {}, 2, "settings has no recipe, num_epochs"),
        ({}, {"AWS_SECRET_ACCESS_KEY": "wrong-one"}, 2, "AWS_SECRET_ACCESS_KEY is not that of"),
        ({}, {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, 75, "does not answer"),
    ],
)  # fmt: skip
def test_what_cannot_begin_says_why_before_any_rank_starts(
    store: dict[str, str], tmp_path: Path, given: dict[str, str], environment: dict[str, str], code: int, says: str
) -> None:
    asked = arguments_of(f"s3://{BUCKET}/never", **{"settings": settings_of(), **given})
    with started(tmp_path / "a", *asked, AWS_MAX_ATTEMPTS="2", **environment) as process:
        said = process.communicate(timeout=120)[0]
    assert process.returncode == code, said
    assert says in said.splitlines()[-1]
    assert says in (tmp_path / "a" / "message").read_text()
    assert "wrong-one" not in said


@pytest.mark.parametrize(("limit", "threads"), [("max 100000", 16), ("800000 100000", 2), ("150000 100000", 1), ("", 16)])
def test_ranks_share_the_cores_of_their_container(
    limit: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(torchrun, "CORES", tmp_path / "cpu.max")
    if limit:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert torchrun.threads_each(4) == threads
    assert torchrun.threads_each(1000) == 1


# --- checkpoints ---


@pytest.fixture
def place(request: pytest.FixtureRequest, store: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(checkpoints, "SECONDS", 0.05)
    monkeypatch.setattr(checkpoints, "SIGN_SECONDS", 0.2)
    return f"s3://{BUCKET}/{request.node.name}"


def write_checkpoint(folder: Path, name: str) -> None:
    with Artifact(folder / name, "checkpoint", {"name": name}, {}).building() as unfinished:
        (unfinished / "state").write_text(name)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_checkpoint_outlives_its_node(place: str, tmp_path: Path) -> None:
    with checkpoints.synced(place, tmp_path / "a", False):
        for name in ("update-1", "update-2"):
            write_checkpoint(tmp_path / "a", name)
            wait_for(lambda name=name: transfer.read_text(f"{place}/latest") == name)  # type: ignore[misc]
    assert transfer.read_text(f"{place}/update-1/state") is None
    with checkpoints.synced(place, tmp_path / "b", False):
        assert [path.name for path in (tmp_path / "b").iterdir()] == ["update-2"]
        assert (tmp_path / "b" / "update-2" / "state").read_text() == "update-2"


def test_a_run_that_is_stopped_stores_what_it_wrote_last(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS", 100)
    with pytest.raises(SystemExit), checkpoints.synced(place, tmp_path / "a", False):
        (tmp_path / "a" / "update-9").write_text("a file is one too")
        raise SystemExit(143)
    with checkpoints.synced(place, tmp_path / "b", False):
        assert (tmp_path / "b" / "update-9").read_text() == "a file is one too"


def test_nodes_of_an_elastic_job_get_each_others_checkpoints(place: str, tmp_path: Path) -> None:
    with checkpoints.synced(place, tmp_path / "a", True), checkpoints.synced(place, tmp_path / "b", True):
        write_checkpoint(tmp_path / "a", "update-1")
        wait_for((tmp_path / "b" / "update-1").is_dir)
        write_checkpoint(tmp_path / "b", "update-2")
        wait_for((tmp_path / "a" / "update-2").is_dir)


def test_a_damaged_checkpoint_or_an_absent_store_stops_no_training(
    place: str, store: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with checkpoints.synced(place, tmp_path / "a", False):
        write_checkpoint(tmp_path / "a", "update-1")
        wait_for(lambda: transfer.read_text(f"{place}/latest") == "update-1")
    transfer.write_text(f"{place}/update-1/state", "update-7")
    with checkpoints.synced(place, tmp_path / "b", False):
        assert not (tmp_path / "b" / "update-1").exists()
    assert f"checkpoint: {place}/update-1/state is not the file that was stored" in capsys.readouterr().out
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with proxy_to(store["AWS_ENDPOINT_URL"]) as proxy:
        proxy.left = 0
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.setenv(name, proxy.url)
        with checkpoints.synced(place, tmp_path / "c", False):
            write_checkpoint(tmp_path / "c", "update-3")
            wait_for(lambda: "does not answer" in capsys.readouterr().out)
            proxy.left = float("inf")
            wait_for(lambda: transfer.read_text(f"{place}/latest") == "update-3")


def test_one_that_the_training_has_just_deleted_is_no_trouble(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, looks = shutil.copytree, []

    def too_late(source: Path, *given: Any, **options: Any) -> Any:
        looks.append(source.name)
        if len(looks) == 1:
            write_checkpoint(source.parent, "update-2")
            shutil.rmtree(source)
        return copy(source, *given, **options)

    monkeypatch.setattr(shutil, "copytree", too_late)
    with checkpoints.synced(place, tmp_path / "a", False):
        write_checkpoint(tmp_path / "a", "update-1")
        wait_for(lambda: transfer.read_text(f"{place}/latest") == "update-2")
    assert looks == ["update-1", "update-2"]
    assert "checkpoint:" not in capsys.readouterr().out


def test_what_the_training_deletes_meanwhile_is_stored_whole(place: str, tmp_path: Path) -> None:
    with checkpoints.synced(place, tmp_path / "a", False):
        for number in range(8):
            write_checkpoint(tmp_path / "a", f"update-{number}")
            if number:
                shutil.rmtree(tmp_path / "a" / f"update-{number - 1}")
            time.sleep(0.03)
        wait_for(lambda: transfer.read_text(f"{place}/latest") == "update-7")
    transfer.fetch(f"{place}/update-7", tmp_path / "back")
    with pytest.raises(UserError, match="there is nothing"):
        transfer.fetch(f"{place}/update-6", tmp_path / "old")


def test_a_run_that_was_stopped_leaves_its_place_to_the_next_at_once(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit), checkpoints.synced(place, tmp_path / "a", False, "run-1"):
        write_checkpoint(tmp_path / "a", "update-1")
        raise SystemExit(143)
    monkeypatch.setattr(checkpoints, "SIGN_SECONDS", 100)
    with checkpoints.synced(place, tmp_path / "b", False, "run-2"):
        assert (tmp_path / "b" / "update-1").is_dir()
        write_checkpoint(tmp_path / "b", "update-2")
        wait_for(lambda: transfer.read_text(f"{place}/latest") == "update-2")
    checkpoints.forget(place, "run-2")
    assert transfer.digests(place) == {}


def test_two_jobs_that_train_the_same_do_not_mix(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with checkpoints.synced(place, tmp_path / "a", False, "run-1"):
        write_checkpoint(tmp_path / "a", "update-1")
        wait_for(lambda: transfer.read_text(f"{place}/latest") == "update-1")
        with pytest.raises(SystemExit), checkpoints.synced(place, tmp_path / "b", False, "run-2"):
            assert not (tmp_path / "b" / "update-1").exists()
            write_checkpoint(tmp_path / "b", "update-7")
            raise SystemExit(143)
        said = f"checkpoint: run-1 trains the same, with {place}: this job's checkpoints go to {place}.run-2\n"
        assert said in capsys.readouterr().out
        with checkpoints.synced(place, tmp_path / "c", False, "run-2"):  # it goes on from its own, as another attempt
            assert [path.name for path in (tmp_path / "c").iterdir()] == ["update-7"]
        checkpoints.forget(place, "run-2")
        assert transfer.digests(f"{place}.run-2") == {}
        assert transfer.read_text(f"{place}/latest") == "update-1"
        monkeypatch.setattr(checkpoints, "SIGN_SECONDS", 100)
        with checkpoints.synced(place, tmp_path / "d", False, "run-1"):  # another node of the first job
            assert (tmp_path / "d" / "update-1").is_dir()


def test_the_place_of_a_job_that_was_killed_is_taken_over(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "a", "update-1")
    killed = checkpoints.Kept(place, "run-1", tmp_path / "a")
    killed.choose()
    killed.store()
    with checkpoints.synced(place, tmp_path / "b", False, "run-2"):
        assert (tmp_path / "b" / "update-1").is_dir()
        write_checkpoint(tmp_path / "a", "update-2")
        killed.store()  # it was not killed, but cut off
        assert transfer.read_text(f"{place}.run-1/latest") == "update-2"
        assert transfer.read_text(f"{place}/latest") == "update-1"
        killed.leave()
        assert (transfer.read_text(f"{place}/owner") or "").startswith("run-2 ")
    assert f"run-2 trains the same, with {place}: this job's checkpoints go to {place}.run-1" in capsys.readouterr().out


def test_one_that_leaves_while_another_looks_is_followed(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = checkpoints.Kept(place, "run-1", tmp_path)
    first.choose()
    monkeypatch.setattr("components.launch.checkpoints.time.sleep", lambda seconds: first.leave())
    with checkpoints.synced(place, tmp_path / "b", False, "run-2"):
        assert (transfer.read_text(f"{place}/owner") or "").startswith("run-2 ")


def test_a_job_whose_store_was_away_when_it_began_does_not_store_into_anothers_place(place: str, tmp_path: Path) -> None:
    transfer.write_text(f"{place}/owner", "run-1 then")
    late = checkpoints.Kept(place, "run-2", tmp_path / "b", uri=place)  # as `choose` leaves it that fails
    write_checkpoint(tmp_path / "b", "update-1")
    late.store()
    assert transfer.read_text(f"{place}.run-2/latest") == "update-1"
    assert transfer.read_text(f"{place}/latest") is None
