"""Names of the hub and its files, through its own library, from a stand-in of its HTTP API."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stub import Hub, environment, forget, hub_stub, library_at
from support import ROOT, run_module

from components.errors import TryAgainError, UserError
from components.storage import hub

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 1000, "pytorch_model.bin": b"p" * 1000, "sub/config.json": b"[]"}


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Hub]:
    with hub_stub() as stub, library_at(stub.url, tmp_path / "cache"):
        yield stub


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize("name", ["owner/name", "single"])
def test_a_name_is_tied_to_its_commit_by_one_request(stub: Hub, kind: hub.Kind, name: str) -> None:
    repository = stub.add(kind, name)
    first = repository.commit({"config.json": b"{}"}, "v1")
    last = repository.commit({"config.json": b"[]"})
    repository.refs["refs/convert/parquet"] = first
    for revision, commit in (("", last), ("@v1", first), (f"@{first[:8]}", first), ("@refs/convert/parquet", first)):
        stub.requests.clear()
        assert hub.pinned(f"{name}{revision}", kind) == f"{name}@{commit}"
        assert len(stub.requests) == 1
        assert hub.pinned(f"{name}@{commit}", kind) == f"{name}@{commit}"
        assert len(stub.requests) == 1


def test_only_what_matches_is_fetched_and_only_once(stub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    repository = stub.add("model", "owner/name")
    name = f"owner/name@{repository.commit(FILES)}"
    folder = hub.folder_of(name, "model", ("*.json", "model.safetensors"))
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "config.json",
        "model.safetensors",
    }
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert f"fetched hub:{name}: 2 files" in capsys.readouterr().out
    repository.commit({"config.json": b"another"})
    stub.requests.clear()
    forget()
    assert hub.folder_of(name, "model", ("*.json", "model.safetensors")) == folder
    assert not stub.requests
    assert capsys.readouterr().out == ""
    assert hub.names_in(name, "model") == list(FILES)
    hub.folder_of(name, "model", ("*.bin",))
    assert [it for it in stub.requests if it.startswith("GET")] == [f"GET /owner/name/resolve/{name[-40:]}/pytorch_model.bin"]


def test_without_a_network_what_is_cached_is_taken(stub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    repository = stub.add("model", "owner/name")
    commit = repository.commit(FILES)
    hub.folder_of("owner/name", "model", ("config.json",))
    for offline in (True, False):
        with pytest.MonkeyPatch.context() as patched:
            from huggingface_hub import constants

            patched.setattr(constants, "HF_HUB_OFFLINE", offline)
            nowhere = "http://127.0.0.1:9"  # where nothing listens
            patched.setattr(constants, "ENDPOINT", nowhere)
            patched.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere + "/{repo_id}/resolve/{revision}/{filename}")
            forget()
            capsys.readouterr()
            assert hub.pinned("owner/name", "model") == f"owner/name@{commit}"
            assert f"no network, so commit {commit}" in capsys.readouterr().err
            assert (hub.folder_of("owner/name", "model", ("config.json",)) / "config.json").read_bytes() == b"{}"
            why = "HF_HUB_OFFLINE is set" if offline else "127.0.0.1:9 cannot be reached"
            for ask in (
                lambda: hub.folder_of("owner/name", "model", ("*.safetensors",)),
                lambda: hub.folder_of(f"owner/name@{'0' * 40}", "model", ("config.json",)),
                lambda: hub.pinned("owner/name@v2", "model"),
            ):
                with pytest.raises(UserError, match=f"^cannot load model 'owner/name.*{why}.*not all of it.*--model a folder"):
                    ask()
            with pytest.raises(UserError, match=f"^cannot find owner/name on the hub: {why}.*--source a folder"):
                hub.pinned("owner/name", "dataset")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/absent", "127.0.0.1:.* has none of that name for us.*set HF_TOKEN if it is private, or give --model a folder"),
        ("owner/private", "has none of that name for us.*set HF_TOKEN"),
        ("owner/gated", "it is gated: ask for access at 127.0.0.1:.*/owner/gated, then set HF_TOKEN"),
        ("owner/name@v9", "it has no revision 'v9': give a branch, a tag or a commit"),
        ("/no/such/folder", "it is no OWNER/NAME: mend it, or give --model a folder"),
        ("a/b/c", "it is no OWNER/NAME"),
    ],
)
def test_what_the_hub_does_not_give_is_one_line(stub: Hub, name: str, message: str) -> None:
    stub.add("model", "owner/name").commit(FILES)
    for refused, refusal in (("private", (401, "RepoNotFound")), ("gated", (403, "GatedRepo"))):
        repository = stub.add("model", f"owner/{refused}")
        repository.commit(FILES)
        repository.refusal = refusal
    with pytest.raises(UserError, match=message) as raised:
        hub.pinned(name, "model")
    assert str(raised.value).startswith(f"cannot load model '{name}' (no such folder here, so taken as a hub id): ")
    assert "\n" not in str(raised.value)


def test_a_token_opens_what_is_private(stub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = stub.add("dataset", "owner/private")
    repository.refusal, commit = (401, "RepoNotFound"), repository.commit({"train.csv": b"a,label\n"})
    with pytest.raises(UserError, match="set HF_TOKEN"):
        hub.folder_of(f"owner/private@{commit}", "dataset", ("train.csv",))
    monkeypatch.setenv("HF_TOKEN", "hf_of-somebody-else")
    with pytest.raises(UserError, match="check HF_TOKEN") as raised:
        hub.pinned("owner/private", "dataset")
    assert "somebody-else" not in str(raised.value)
    monkeypatch.setenv("HF_TOKEN", stub.token)
    assert hub.pinned("owner/private", "dataset") == f"owner/private@{commit}"
    assert (hub.folder_of("owner/private", "dataset", ("train.csv",)) / "train.csv").is_file()


def test_a_hub_that_fails_may_work_later(stub: Hub) -> None:
    stub.add("model", "owner/name").commit(FILES)
    name = hub.pinned("owner/name", "model")
    forget()
    stub.failing = 503
    with pytest.raises(TryAgainError, match="failed with 503"):
        hub.pinned("owner/name", "model")  # though the cache knows a commit, which may be an old one
    with pytest.raises(TryAgainError, match="failed with 503"):
        hub.folder_of(name, "model", ("config.json",))


@pytest.mark.parametrize("damage", ["cut", "spoilt"])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_not_kept(stub: Hub, damage: str, file: str) -> None:
    stub.add("model", "owner/name").commit({file: b"{}" * 500})
    setattr(stub, damage, 3)
    with pytest.raises(TryAgainError, match="came damaged") as raised:
        hub.folder_of("owner/name", "model", (file,))
    assert "\n" not in str(raised.value)
    setattr(stub, damage, 0)
    assert (hub.folder_of("owner/name", "model", (file,)) / file).read_bytes() == b"{}" * 500


def test_a_file_that_repositories_share_is_known_by_its_own_name(stub: Hub, tmp_path: Path) -> None:
    """As the library keeps what came by Xet: the blob is a link to a file that is named by another digest."""
    stub.add("model", "owner/name").commit(FILES)
    path = hub.folder_of("owner/name", "model", ("*.safetensors",)) / "model.safetensors"
    shared, blob = tmp_path / ("f" * 64), path.resolve()
    blob.rename(shared)
    blob.symlink_to(shared)
    forget()
    assert (hub.folder_of("owner/name", "model", ("*.safetensors",)) / "model.safetensors").read_bytes() == b"w" * 1000
    shared.write_bytes(b"other" * 200)
    forget()
    with pytest.raises(TryAgainError, match="came damaged and was deleted"):
        hub.folder_of("owner/name", "model", ("*.safetensors",))
    assert not shared.exists()
    assert (hub.folder_of("owner/name", "model", ("*.safetensors",)) / "model.safetensors").read_bytes() == b"w" * 1000


def test_the_settings_that_a_namespace_mounts_reach_the_hub(tmp_path: Path) -> None:
    with hub_stub() as stub:
        repository = stub.add("model", "owner/private")
        repository.refusal, commit = (401, "RepoNotFound"), repository.commit(FILES)
        known = {**environment(stub.url, tmp_path / "cache"), "HF_TOKEN": stub.token}
        for folder, name in (("s3", "HF_TOKEN"), *(("config", name) for name in known if name != "HF_TOKEN")):
            (tmp_path / "mounted" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "mounted" / folder / name).write_text(known[name] + "\n")
        code = f"""
from pathlib import Path
from components import image, parameters
image.take_mounted_settings.__defaults__ = (Path({str(tmp_path / "mounted")!r}),)
from components.resolve.step import resolve_step
form = {{name: parameters.default(name) for name in parameters.form()}} | dict(tasks=[], seeds=[], task="rte")
print(resolve_step(form | dict(source="sample", model="owner/private"), [])[0])
"""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        clean |= {
            "HF_HOME": str(tmp_path),
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
            "PIPELINE_RUN_ID": "run-1",
        }
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=clean)
    assert done.returncode == 0, done.stderr
    assert f'"model":"owner/private@{commit}"' in done.stdout
    assert stub.token not in done.stdout + done.stderr


def test_a_command_says_it_in_one_line(tmp_path: Path) -> None:
    with hub_stub() as stub:
        stub.failing = 503
        given = ("--task", "rte", "--source", "sample", "--model", "owner/name")
        done = run_module("components.resolve", *given, timeout=300, **environment(stub.url, tmp_path))
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr.startswith("error: cannot load model 'owner/name'")
    assert done.stderr.count("\n") == 1
