"""Sources, base models and lineage that lie in an S3 store, through the real stages."""

import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import BUCKET, s3_server
from support import tracking_at

from components.artifacts.folders import FILE, read_manifest
from components.errors import UserError
from components.evaluate.stage import evaluate
from components.lineage.impact import digests_of, find_impact
from components.lineage.tree import read_tree
from components.lineage.verify import verify_tree
from components.modeling.load import load_model, load_tokenizer
from components.register.stage import register
from components.storage import transfer
from components.tasks.sample import generate
from components.tasks.table import TASKS
from components.tokenize.stage import tokenize
from components.train.stage import train

ROOT = f"s3://{BUCKET}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Raw Parquet, a TSV and a base model, here and in the store; what is fetched goes to `fetched`."""
    folder = tmp_path_factory.mktemp("in-store")
    with s3_server(folder / "s3") as environment, pytest.MonkeyPatch.context() as patched:
        for name, value in {**environment, "HF_HOME": str(folder / "fetched")}.items():
            patched.setenv(name, value)
        patched.delenv("AWS_CA_BUNDLE", raising=False)
        raw, base = folder / "raw", folder / "base"
        (raw / "sst2").mkdir(parents=True)
        for split, rows in generate(TASKS["sst2"], 80, 0).items():
            texts, labels = zip(*rows, strict=True)
            table = pa.table({"sentence": [text for (text,) in texts], "label": [int(label) for label in labels]})
            pq.write_table(table, raw / "sst2" / f"{split}.parquet")
        lines = [f"{text}\t{int(label)}" for (text,), label in generate(TASKS["sst2"], 80, 0)["train"]]
        (raw / "own.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
        tokenizer = load_tokenizer("tiny")
        tokenizer.save_pretrained(base)
        load_model("tiny", TASKS["sst2"], len(tokenizer), 0.1).save_pretrained(base)
        transfer.store(raw, f"{ROOT}/raw")
        transfer.store(base, f"{ROOT}/base")
        yield folder


def test_sources_and_models_in_a_store_give_what_they_give_here(folder: Path, tmp_path: Path) -> None:
    for name, place in (("here", str(folder)), ("there", ROOT)):
        out = tmp_path / name
        base, own = f"{place}/base", f"{place}/raw/own.tsv"
        tokenize(task="mine", source=own, model=base, output_dir=out / "own", text_columns=["text"], label_column="label")
        tokenize(task="sst2", source=f"{place}/raw", model=base, output_dir=out / "data")
        train(data_dir=out / "data", model=base, output_dir=out / "model", num_updates=1)
    for stage, kind in (("tokenize", "own"), ("tokenize", "data"), ("train", "model")):
        here, there = (read_manifest(tmp_path / name / kind, stage) for name in ("here", "there"))
        assert here["inputs"] == there["inputs"]
        one, other = ({path: file["sha256"] for path, file in each["files"].items()} for each in (here, there))
        tells = {"timings.jsonl": "", "training.json": ""}  # seconds, and the model's place
        assert one | tells == other | tells
    told = [json.loads((tmp_path / name / "model" / "training.json").read_text()) for name in ("here", "there")]
    told_here, told_there = (json.dumps({**each, "timings": {}}) for each in told)
    assert told_here.replace(str(folder), ROOT) == told_there
    assert there["origins"]["model"]["uri"] == f"{ROOT}/base"
    assert there["origins"]["data"]["manifest"]["origins"]["source"]["uri"] == f"{ROOT}/raw"
    assert there["origins"]["data"]["manifest"]["origins"]["tokenizer"]["uri"] == f"{ROOT}/base"
    with pytest.raises(UserError, match=f"there is nothing at {ROOT}/nothing"):
        load_tokenizer(f"{ROOT}/nothing")


@pytest.fixture(scope="module")
def registered(folder: Path) -> Iterator[str]:
    """A version all of whose inputs were fetched from the store, or stored there and fetched again."""
    with tracking_at(f"sqlite:///{folder / 'mlflow.db'}"):
        mlflow.set_experiment(experiment_id=mlflow.create_experiment("e", (folder / "store").as_uri()))
        tokenize(task="sst2", source=f"{ROOT}/raw", model=f"{ROOT}/base", output_dir=folder / "data")
        transfer.store(folder / "data", f"{ROOT}/data")
        data = transfer.local(f"{ROOT}/data")
        train(data_dir=data, model=f"{ROOT}/base", output_dir=folder / "model", num_updates=1)
        transfer.store(folder / "model", f"{ROOT}/model")
        model = transfer.local(f"{ROOT}/model")
        evaluate(model_dir=model, data_dir=data, output_dir=folder / "evaluation", robustness_rows=0)
        yield register(model_dir=model, evaluation_dir=folder / "evaluation", name="stored")["model_uri"]


def findings(uri: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in verify_tree(*read_tree(uri)):
        found.setdefault(finding.state, []).append(finding.item)
    return found


def test_what_lies_in_a_store_is_verified_there(registered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    same = findings(registered)
    assert set(same) == {"same"}
    assert {f"source: {ROOT}/raw/sst2/train.parquet", f"model: {ROOT}/model/{FILE}"} <= set(same["same"])
    text = transfer.read_text(f"{ROOT}/data/task.json")
    assert text
    transfer.write_text(f"{ROOT}/data/task.json", text.replace("sst2", "sst3"))
    assert findings(registered)["changed"] == [f"data: {ROOT}/data/task.json"]
    transfer.remove(f"{ROOT}/data/task.json")
    assert findings(registered)["gone"] == [f"data: {ROOT}/data/task.json"]
    transfer.write_text(f"{ROOT}/data/task.json", text)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    reached = findings(registered)
    assert set(reached) == {"same", "out of reach"}
    assert f"source: {ROOT}/raw" in reached["out of reach"]


@pytest.mark.parametrize("what", ["raw/sst2/train.parquet", "raw", "base", "data"])
def test_what_came_from_something_in_a_store_is_found(registered: str, what: str) -> None:
    ((version, _),) = find_impact(digests_of(f"{ROOT}/{what}"))
    assert f"models:/stored/{version.version}" == registered
