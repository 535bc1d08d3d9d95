import json
import shutil
from pathlib import Path

import pytest

from components.artifacts import folders
from components.artifacts.folders import CACHE, FILE, Artifact, combined_digest, content_digest, file_digest, read_manifest
from components.errors import UserError


def artifact(path: Path, **parameters: object) -> Artifact:
    return Artifact(path, "tokenize", parameters, {"source": "abc"})


def build(path: Path, **parameters: object) -> Artifact:
    made = artifact(path, **parameters)
    with made.building() as folder:
        (folder / "a.txt").write_text("a")
        (folder / "deep").mkdir()
        (folder / "deep" / "b.txt").write_text("b")
    return made


def test_manifest_names_every_file_with_its_digest(tmp_path: Path) -> None:
    build(tmp_path / "out", max_length=8)
    manifest = read_manifest(tmp_path / "out", "tokenize")
    assert manifest["files"]["deep/b.txt"] == {"sha256": file_digest(tmp_path / "out" / "deep" / "b.txt"), "bytes": 1}
    assert manifest["digest"] == combined_digest({name: file["sha256"] for name, file in manifest["files"].items()})
    assert manifest["parameters"] == {"max_length": 8}
    assert manifest["inputs"] == {"source": "abc"}


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    build(tmp_path / "one", max_length=8)
    build(tmp_path / "two", max_length=9)
    assert read_manifest(tmp_path / "one", "tokenize")["digest"] == read_manifest(tmp_path / "two", "tokenize")["digest"]


def test_nothing_is_left_when_building_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), artifact(tmp_path / "out").building() as folder:
        (folder / "a.txt").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_same_parameters_are_cached_and_others_refused(tmp_path: Path) -> None:
    build(tmp_path / "out", max_length=8)
    assert artifact(tmp_path / "out", max_length=8).cached() is not None
    with pytest.raises(UserError, match="made with other parameters"):
        artifact(tmp_path / "out", max_length=9).cached()
    assert artifact(tmp_path / "new").cached() is None


def test_a_folder_of_the_users_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no output of ours"):
        artifact(tmp_path).cached()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert artifact(tmp_path / "out").cached() is None
    build(tmp_path / "out")
    assert (tmp_path / "out" / FILE).is_file()


@pytest.mark.parametrize("damage", ["change", "remove", "truncate"])
def test_a_reader_refuses_a_folder_that_is_not_whole_and_names_the_file(tmp_path: Path, damage: str) -> None:
    build(tmp_path / "out")
    file = tmp_path / "out" / "deep" / "b.txt"
    if damage == "remove":
        file.unlink()
    else:
        file.write_text("c" if damage == "change" else "")
    with pytest.raises(UserError, match=r"deep/b\.txt"):
        read_manifest(tmp_path / "out", "tokenize")


def test_a_reader_wants_the_right_stage_and_a_readable_manifest(tmp_path: Path) -> None:
    build(tmp_path / "out")
    with pytest.raises(UserError, match=r"written by components\.tokenize"):
        read_manifest(tmp_path / "out", "train")
    (tmp_path / "out" / FILE).write_text(json.dumps({})[:1])
    with pytest.raises(UserError, match="damaged"):
        read_manifest(tmp_path / "out", "tokenize")
    with pytest.raises(UserError, match="has no manifest"):
        read_manifest(tmp_path, "tokenize")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_an_earlier_run_made_of_the_same_is_taken(tmp_path: Path, cache: Path) -> None:
    build(tmp_path / "one", max_length=8)
    manifest = artifact(tmp_path / "two", max_length=8).cached()
    assert manifest == read_manifest(tmp_path / "two", "tokenize") == read_manifest(tmp_path / "one", "tokenize")
    assert (tmp_path / "two" / "a.txt").stat().st_ino == (tmp_path / "one" / "a.txt").stat().st_ino
    assert artifact(tmp_path / "three", max_length=9).cached() is None
    assert Artifact(tmp_path / "three", "tokenize", {"max_length": 8}, {"source": "abd"}).cached() is None
    assert Artifact(tmp_path / "three", "train", {"max_length": 8}, {"source": "abc"}).cached() is None
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "cache"}


@pytest.mark.parametrize("damage", ["change", "remove", "no folder"])
def test_a_cached_result_that_is_damaged_or_gone_is_made_again(tmp_path: Path, cache: Path, damage: str) -> None:
    build(tmp_path / "one")
    if damage == "no folder":
        shutil.rmtree(tmp_path / "one")
    elif damage == "remove":
        (tmp_path / "one" / "a.txt").unlink()
    else:
        (tmp_path / "one" / "a.txt").write_text("b")
    assert artifact(tmp_path / "two").cached() is None
    build(tmp_path / "two")
    assert artifact(tmp_path / "three").cached() is not None


def test_other_code_or_other_libraries_or_an_unknown_input_make_it_anew(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "one")
    with monkeypatch.context() as patched:
        patched.setattr(folders, "code_digest", lambda stage: "other")
        assert artifact(tmp_path / "two").cached() is None
    with monkeypatch.context() as patched:
        patched.setattr(folders, "libraries_of", lambda stage: {"python": "3.11", "transformers": "0.1"})
        assert artifact(tmp_path / "two").cached() is None
        with pytest.raises(UserError, match=r"one exists and was made with transformers \d.*, not 0\.1: choose another"):
            artifact(tmp_path / "one").cached()
    unknown = Artifact(tmp_path / "three", "tokenize", {}, {"model": ""})
    with unknown.building():
        pass
    assert Artifact(tmp_path / "four", "tokenize", {}, {"model": ""}).cached() is None
    with pytest.raises(UserError, match="what model was then cannot be told"):
        unknown.cached()
    assert artifact(tmp_path / "two").cached() is not None


def test_what_tells_of_one_making_alone_is_kept_and_not_in_the_digest(tmp_path: Path) -> None:
    manifests = []
    for seconds in (1.5, 2.5):
        path = tmp_path / str(seconds)
        with Artifact(path, "train", {}, {}, aside={"clock.txt": "", "record.json": "timings"}).building() as folder:
            (folder / "clock.txt").write_text(str(seconds))
            (folder / "record.json").write_text(json.dumps({"rate": 0.1, "timings": {"seconds": seconds}}))
            (folder / "weights").write_text("w")
        manifests.append(read_manifest(path, "train"))
    assert manifests[0]["digest"] == manifests[1]["digest"] == content_digest(manifests[0]["files"])
    assert manifests[0]["files"]["clock.txt"]["sha256"] != manifests[1]["files"]["clock.txt"]["sha256"]
    (tmp_path / "1.5" / "clock.txt").write_text("9")
    with pytest.raises(UserError, match=r"clock\.txt is not the file"):
        read_manifest(tmp_path / "1.5", "train")
    with Artifact(tmp_path / "other", "train", {}, {}, aside={"record.json": "timings"}).building() as folder:
        (folder / "record.json").write_text(json.dumps({"rate": 0.2, "timings": {"seconds": 1.5}}))
        (folder / "weights").write_text("w")
    assert read_manifest(tmp_path / "other", "train")["digest"] != manifests[0]["digest"]


def test_only_the_libraries_that_a_stage_works_with_matter_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = {stage: set(folders.libraries_of(stage)) for stage in ("tokenize", "train", "evaluate", "suite")}
    assert {"python", "torch", "transformers", "safetensors"} <= libraries["train"] <= libraries["evaluate"]
    assert "scikit-learn" in libraries["evaluate"] - libraries["train"]
    assert "torch" not in libraries["tokenize"]
    assert not any({"mlflow", "kfp"} & names for names in libraries.values())
    build(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / FILE).read_text())
    manifest["versions"] |= {"mlflow": "0.1", "torch": "0.1", "python": manifest["versions"]["python"] + "9"}
    (tmp_path / "out" / FILE).write_text(json.dumps(manifest))
    assert artifact(tmp_path / "out").cached() is not None
