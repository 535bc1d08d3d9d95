"""A model and data of the hub on their way through the pipeline, from a stand-in of the hub that its library talks to."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_stub import Hub, environment, forget, hub_stub, library_at, of_folder
from support import run_module

from components.artifacts.folders import read_manifest
from components.modeling.load import load_model, load_tokenizer, model_files
from components.resolve.stage import check, pinned, texts_of
from components.tasks.sample import generate
from components.tasks.table import TASKS
from components.tokenize.stage import tokenize
from components.train.stage import train

TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "config.json"}
KINDS = (("model", "base"), ("dataset", "glue"))
NEVER = {"pytorch_model.bin": b"-", "onnx/model.safetensors": b"-", "tf_model.h5": b"-", "README.md": b"#"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and data in the hub's own schema, as folders."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "glue" / "sst2").mkdir(parents=True)
    for split, rows in generate(TASKS["sst2"], 200, 0).items():
        texts, labels = zip(*rows, strict=True)
        table = pa.table({"sentence": [text for (text,) in texts], "label": [int(label) for label in labels]})
        pq.write_table(table, folder / "glue" / "sst2" / f"{split}-00000-of-00001.parquet")
    tokenizer = load_tokenizer("tiny")
    tokenizer.save_pretrained(folder / "base")
    load_model("tiny", TASKS["sst2"], len(tokenizer), 0.1).save_pretrained(folder / "base")
    return folder


@pytest.fixture
def stub(here: Path) -> Iterator[Hub]:
    with hub_stub() as stub:
        stub.add("model", "owner/base").commit(of_folder(here / "base") | NEVER)
        stub.add("dataset", "owner/glue").commit(of_folder(here / "glue") | {"README.md": b"#", "rte/train.parquet": b"-"})
        yield stub


def move_on(stub: Hub) -> None:
    """New commits that are of no use."""
    stub.add("model", "owner/base").commit({"config.json": b"{}"})
    stub.add("dataset", "owner/glue").commit({"README.md": b"#"})


def fetched(stub: Hub) -> set[str]:
    """The paths that were asked for since the last time."""
    paths = {line.split("/resolve/")[1].partition("/")[2] for line in stub.requests if "/resolve/" in line}
    stub.requests.clear()
    return paths


def test_it_gives_what_the_same_files_in_a_folder_give(
    stub: Hub, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how: dict[str, Any] = {"recipe": "plain", "num_updates": 1, "global_batch_size": 16}
    with library_at(stub.url, tmp_path / "cache"):
        texts = texts_of(pinned(check({**how, "task": "sst2", "source": "hub:owner/glue", "model": "owner/base"})))
        assert len(stub.requests) == 2
        base, glue = (f"owner/{name}@{stub.add(kind, f'owner/{name}').refs['main']}" for kind, name in KINDS)
        assert json.loads(texts["tokenize"])["source"] == f"hub:{glue}"
        assert {json.loads(texts[stage])["model"] for stage in ("tokenize", "train")} == {base}
        move_on(stub)
        stub.requests.clear()
        tokenize(settings=texts["tokenize"], output_dir=tmp_path / "data")
        assert fetched(stub) == TOKENIZER | set(of_folder(here / "glue"))
        train(settings=texts["train"], data_dir=tmp_path / "data", output_dir=tmp_path / "model")
        assert fetched(stub) == {"model.safetensors"}
        capsys.readouterr()
        forget()
        tokenize(settings=texts["tokenize"], output_dir=tmp_path / "data")
        train(settings=texts["train"], data_dir=tmp_path / "data", output_dir=tmp_path / "model")
        assert capsys.readouterr().out.count(": cached in ") == 2
        assert not stub.requests
    out = tmp_path / "here"
    tokenize(task="sst2", source=str(here / "glue"), model=str(here / "base"), output_dir=out / "data")
    train(data_dir=out / "data", model=str(here / "base"), output_dir=out / "model", **how)
    for stage, folder in (("tokenize", "data"), ("train", "model")):
        one, other = (read_manifest(place / folder, stage) for place in (tmp_path, out))
        assert one["inputs"] == other["inputs"]
        assert one["files"].keys() == other["files"].keys()
        assert stage == "train" or one["digest"] == other["digest"]
    assert one["files"]["model.safetensors"] == other["files"]["model.safetensors"]
    data = one["origins"]["data"]["manifest"]
    assert one["parameters"]["model"] == data["parameters"]["model"] == base
    told = {"model": one["origins"]["model"], **data["origins"]}
    uris = {"model": f"hub:{base}", "tokenizer": f"hub:{base}", "source": f"hub:{glue}"}
    assert {name: it["uri"] for name, it in told.items()} == uris
    assert set(told["model"]["files"]) == {"config.json", "model.safetensors"}
    assert set(told["tokenizer"]["files"]) == TOKENIZER


def test_a_stage_by_hand_ties_names_itself(stub: Hub, here: Path, tmp_path: Path) -> None:
    with library_at(stub.url, tmp_path / "cache"):
        base, glue = (f"owner/{name}@{stub.add(kind, f'owner/{name}').refs['main']}" for kind, name in KINDS)
        manifest = tokenize(task="sst2", source="hub:owner/glue", model="owner/base", output_dir=tmp_path / "data")
        assert (manifest["parameters"]["source"], manifest["parameters"]["model"]) == (f"hub:{glue}", base)
        asked = [line for line in stub.requests if "/api/" in line and "/tree/" not in line]
        assert sorted(asked) == ["GET /api/datasets/owner/glue", "GET /api/models/owner/base"]


def test_pickled_weights_are_taken_where_there_are_no_others(stub: Hub, here: Path, tmp_path: Path) -> None:
    files = of_folder(here / "base")
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    stub.add("model", "owner/old").commit(files | {"onnx/model.safetensors": b"-"})
    shards = ("model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    parts = {path: path.encode() for path in shards}
    stub.add("model", "owner/parts").commit({"config.json": b"{}", "pytorch_model.bin": b"-", **parts})
    with library_at(stub.url, tmp_path / "cache"):
        assert set(model_files("owner/old")) == {"config.json", "pytorch_model.bin"}
        assert set(model_files("owner/parts")) == {"config.json", *parts}
        assert "pytorch_model.bin" not in {line.rpartition("/")[2] for line in stub.requests if "owner/parts" in line}


@pytest.mark.slow
def test_the_pipeline_runs_and_its_lineage_is_verified_in_the_cache(stub: Hub, tmp_path: Path) -> None:
    """The compiled pipeline's own components, each a process of its own."""
    known = environment(stub.url, tmp_path / "cache") | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    commit = stub.add("model", "owner/base").refs["main"]
    what = ["--task", "sst2", "--source", "hub:owner/glue", "--model", "owner/base", "--num-epochs", 1, "--name", "of-the-hub"]
    more = ["--robustness-rows", 0, "--num-processes", 2, "--runs-dir", tmp_path / "runs"]
    done = run_module("pipelines.local", "adapt", *what, *more, **known)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    asked = [line for line in stub.requests if "/api/" in line and "/tree/" not in line]
    assert sorted(asked) == ["GET /api/datasets/owner/glue", "GET /api/models/owner/base"]
    stub.requests.clear()
    move_on(stub)

    def lineage(command: str) -> tuple[int, str]:
        done = run_module("components.lineage", command, "models:/of-the-hub/1", **known)  # type: ignore[arg-type]
        return done.returncode, done.stdout + done.stderr

    assert f"hub:owner/base@{commit}" in lineage("show")[1]
    code, said = lineage("verify")
    assert (code, stub.requests) == (0, [])
    assert f"base model: hub:owner/base@{commit}/model.safetensors" in said
    assert "changed" not in said
    assert "out of reach" not in said
    (weights,) = (tmp_path / "cache").glob("models--owner--base/snapshots/*/model.safetensors")
    weights.resolve().write_bytes(b"other bytes")
    code, said = lineage("verify")
    assert code == 2
    assert f"changed      base model: hub:owner/base@{commit}/model.safetensors" in said
    shutil.rmtree(tmp_path / "cache")
    code, said = lineage("verify")
    assert code == 0
    assert f"out of reach base model: hub:owner/base@{commit}  (2 of 2 files are not in the cache here)" in said
