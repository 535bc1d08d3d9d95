"""From raw files to a model version through the real stages: what lineage shows, finds changed, and finds again."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import run_module, tracking_at

from components.artifacts.folders import combined_digest
from components.evaluate.stage import evaluate
from components.lineage.impact import digests_of, find_impact
from components.lineage.show import as_page, as_text
from components.lineage.tree import read_tree
from components.lineage.verify import verify_tree
from components.modeling.load import load_model, load_tokenizer
from components.register.stage import register
from components.tasks.sample import Row, generate
from components.tasks.table import TASKS, Task
from components.tokenize import read
from components.tokenize.stage import tokenize
from components.train.stage import train

NUM_ROWS = 21_000  # a digest of the first rows alone, as MLflow's own, would not see the last


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Raw Parquet and a base model of files, and all that comes of them; `uri` of the version, `store` of MLflow."""
    folder = tmp_path_factory.mktemp("chain")
    raw, base = folder / "raw" / "sst2", folder / "base"
    raw.mkdir(parents=True)
    rows = generate(TASKS["sst2"], 300, 0)
    for split, number in (("train", NUM_ROWS), ("validation", 100)):
        texts, labels = zip(*rows[split], strict=True)
        taken = [place % len(texts) for place in range(number)]
        table = {"sentence": [texts[place][0] for place in taken], "label": [int(labels[place]) for place in taken]}
        pq.write_table(pa.table({**table, "idx": list(range(number))}), raw / f"{split}.parquet", row_group_size=5000)
    tokenizer = load_tokenizer("tiny")
    tokenizer.save_pretrained(base)
    load_model("tiny", TASKS["sst2"], len(tokenizer), 0.1).save_pretrained(base)
    with tracking_at(f"sqlite:///{folder / 'mlflow.db'}"):
        mlflow.set_experiment(experiment_id=mlflow.create_experiment("e", (folder / "store").as_uri()))
        data, model, evaluation = (folder / name for name in ("data", "model", "evaluation"))
        tokenize(task="sst2", source=str(folder / "raw"), model=str(base), output_dir=data)
        train(data_dir=data, model=str(base), output_dir=model, num_updates=2, learning_rate=1e-3, global_batch_size=32)
        evaluate(model_dir=model, data_dir=data, output_dir=evaluation, robustness_rows=10)
        uri = register(model_dir=model, evaluation_dir=evaluation, name="chained")["model_uri"]
        yield {"folder": folder, "uri": uri, "data": data, "model": model, "base": base, "raw": raw, "store": folder / "store"}


def findings(uri: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in verify_tree(*read_tree(uri)):
        found.setdefault(finding.state, []).append(finding.item)
    return found


def test_the_tree_goes_down_to_the_raw_files(chain: dict[str, Any]) -> None:
    version, tree = read_tree(chain["uri"])
    kinds = {node.kind: node for node in tree.walk()}
    assert set(kinds) == {"version", "evaluation", "model", "data", "source", "tokenizer", "base model"}
    assert set(kinds["source"].files) == {"sst2/train.parquet", "sst2/validation.parquet"}
    assert "model.safetensors" in kinds["base model"].files
    assert (
        kinds["model"].digest
        == version.tags["digest.model"]
        == json.loads((chain["model"] / "manifest.json").read_text())["digest"]
    )
    text = as_text(version, tree)
    assert re.match(r"models:/chained/1 @\w+", text)
    for node in kinds.values():
        assert f"{node.digest[:12]}" in text
        assert node.uri in text
    assert text.count("as above") == 1
    page = as_page(version, tree)
    assert kinds["base model"].files["model.safetensors"] in page
    assert not re.search(r"(src|href)=", page)  # it needs nothing else


def test_what_nobody_touched_is_the_same(chain: dict[str, Any]) -> None:
    assert set(findings(chain["uri"])) == {"same"}


@pytest.mark.parametrize(
    ("place", "kind", "near_the_end"),
    [
        ("raw/sst2/train.parquet", "source", False),
        ("data/train.parquet", "data", False),
        ("data/tokenizer/tokenizer.json", "data", True),
        ("model/model.safetensors", "model", True),
        ("base/model.safetensors", "base model", True),
        ("store/**/artifacts/model/model.safetensors", "model", True),
        ("store/**/evaluation/predictions.parquet", "evaluation", False),
    ],
)
def test_one_flipped_byte_is_found_and_named(chain: dict[str, Any], place: str, kind: str, near_the_end: bool) -> None:
    (path,) = chain["folder"].glob(place)
    bytes_before = path.read_bytes()
    if near_the_end:
        at = len(bytes_before) - 5
    elif path.name == "train.parquet":  # in the last row group: after the 20,000th row
        groups = pq.ParquetFile(path).metadata
        group = groups.row_group(groups.num_row_groups - 1)
        assert groups.num_rows - group.num_rows <= 20_000 <= groups.num_rows
        at = group.column(0).data_page_offset + group.column(0).total_compressed_size - 3
    else:
        at = len(bytes_before) // 2
    flipped = bytearray(bytes_before)
    flipped[at] ^= 1
    path.write_bytes(flipped)
    try:
        found = findings(chain["uri"])
    finally:
        path.write_bytes(bytes_before)
    assert [item.split(":")[0] for item in found["changed"]] == [kind]
    assert found["changed"][0].endswith(path.name)
    assert set(found) == {"same", "changed"}


def test_what_is_deleted_is_gone_and_a_forged_manifest_is_changed(chain: dict[str, Any]) -> None:
    moved = chain["folder"] / "elsewhere"
    shutil.move(chain["raw"], moved)
    try:
        assert findings(chain["uri"])["gone"] == [
            f"source: {chain['folder'] / 'raw'}/sst2/{split}.parquet" for split in ("train", "validation")
        ]
    finally:
        shutil.move(moved, chain["raw"])
    path = chain["data"] / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"max_length": 128', '"max_length": 127'))
    try:
        assert findings(chain["uri"])["changed"] == [f"data: {chain['data']}/manifest.json"]
    finally:
        path.write_text(text)
    (stored,) = chain["store"].glob("**/evaluation/manifest.json")
    text = stored.read_text()
    digest = json.loads(text)["inputs"]["model"]
    stored.write_text(text.replace(digest, "0" * 64))
    try:
        assert any(item.endswith(": manifest") for item in findings(chain["uri"])["changed"])
    finally:
        stored.write_text(text)


def test_a_model_that_was_trained_again_to_the_same_content_is_the_same(chain: dict[str, Any]) -> None:
    """Its clock is another, and so is its manifest; what counts in a file that has a clock in it is looked at."""
    model, first = chain["model"], chain["folder"] / "first"
    shutil.move(model, first)
    try:
        train(
            data_dir=chain["data"],
            model=str(chain["base"]),
            output_dir=model,
            num_updates=2,
            learning_rate=1e-3,
            global_batch_size=32,
        )
        assert (model / "timings.jsonl").read_bytes() != (first / "timings.jsonl").read_bytes()
        again = register(model_dir=model, evaluation_dir=chain["folder"] / "evaluation", name="again")["model_uri"]
        for uri in (chain["uri"], again):
            assert set(findings(uri)) == {"same"}
        record, manifest = (model / "training.json").read_text(), json.loads((model / "manifest.json").read_text())
        forged = record.replace('"num_updates": 2', '"num_updates": 3')
        (model / "training.json").write_text(forged)
        manifest["files"]["training.json"]["sha256"] = hashlib.sha256(forged.encode()).hexdigest()
        (model / "manifest.json").write_text(json.dumps(manifest))
        assert {f"model: {model}/training.json", f"model: {model}/manifest.json"} <= set(findings(chain["uri"])["changed"])
    finally:
        shutil.rmtree(model, ignore_errors=True)
        shutil.move(first, model)
        mlflow.MlflowClient().delete_registered_model("again")


def test_the_commands_say_it_and_exit_2_where_something_differs(chain: dict[str, Any]) -> None:
    shown = run_module("components.lineage", "show", chain["uri"], "--json", MLFLOW_TRACKING_URI=mlflow.get_tracking_uri())
    assert json.loads(shown.stdout)["made_of"][0]["kind"] == "evaluation", shown.stderr
    path = chain["data"] / "validation.parquet"
    before = path.read_bytes()
    path.write_bytes(before[:-1])
    try:
        done = run_module("components.lineage", "verify", chain["uri"], MLFLOW_TRACKING_URI=mlflow.get_tracking_uri())
    finally:
        path.write_bytes(before)
    assert done.returncode == 2
    assert f"changed      data: {path}  (sha256" in done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {chain['uri']}: ")
    missing = run_module("components.lineage", "show", "models:/nobody/1", MLFLOW_TRACKING_URI=mlflow.get_tracking_uri())
    assert (missing.returncode, len(missing.stderr.strip().splitlines())) == (2, 1), missing.stderr


@pytest.mark.parametrize("what", ["digest", "raw file", "raw folder", "our folder", "weights"])
def test_every_version_that_came_from_something_is_found(chain: dict[str, Any], what: str) -> None:
    wanted = {
        "digest": json.loads((chain["data"] / "manifest.json").read_text())["digest"][:12],
        "raw file": chain["raw"] / "train.parquet",
        "raw folder": chain["folder"] / "raw",
        "our folder": chain["model"],
        "weights": chain["base"] / "model.safetensors",
    }[what]
    ((version, place),) = find_impact(digests_of(str(wanted)))
    assert (version.name, str(version.version)) == ("chained", "1")
    kinds = {"digest": "data", "raw file": "source", "raw folder": "source", "our folder": "model", "weights": "base model"}
    assert place.startswith(f"{kinds[what]} ")


def test_what_nothing_came_from_has_no_impact(chain: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("new")
    assert list(find_impact(digests_of(str(tmp_path / "new.txt")))) == []
    done = run_module("components.lineage", "impact", "no-such-thing", MLFLOW_TRACKING_URI=mlflow.get_tracking_uri())
    assert done.returncode == 2
    assert "neither a file or folder here nor a digest" in done.stderr


def test_generated_data_are_generated_again_to_be_checked(
    tracking: str,
    tokenized: Callable[[str], Path],
    trained: Callable[[str], Path],
    evaluated: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = register(model_dir=trained("mnli"), evaluation_dir=evaluated("mnli"))["model_uri"]
    version, tree = read_tree(uri)
    (source,) = (node for node in tree.walk() if node.kind == "source")
    assert version.tags["digest.source"] == source.digest == combined_digest(source.files)
    assert set(source.files) == {*(f"mnli/{split}" for split in TASKS["mnli"].files), "ax/test"}
    made = source.generator
    assert (made["task"], made["num_rows"], made["seed"]) == ("mnli", 200, 0)
    for shown in (as_text(version, tree), as_page(version, tree)):
        assert f"generated: {made['by']}, task=mnli num_rows=200, code {made['code'][:12]}" in shown
    assert set(findings(uri)) == {"same"}
    found = find_impact({source.files["mnli/train"]})
    assert [place for _, place in found] == ["source sample/mnli/train"]

    def other(task: Task, num_rows: int, seed: int) -> dict[str, list[Row]]:
        rows = generate(task, num_rows, seed)
        return {**rows, "train": [*rows["train"][1:], rows["train"][0]]} if "train" in rows else rows

    monkeypatch.setattr(read, "generate", other)
    assert findings(uri)["changed"] == ["source: sample/mnli/train"]
    monkeypatch.setattr(read, "sources_of", lambda _: [])  # as a later version of the generator would have it
    found_then = findings(uri)
    assert (found_then["out of reach"], "changed" in found_then) == (["source: sample/mnli/train"], False)


def test_openlineage_events_name_the_same_datasets(chain: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    done = run_module("components.lineage", "emit", chain["uri"], "--to", file, MLFLOW_TRACKING_URI=mlflow.get_tracking_uri())
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(event["eventType"], event["job"]["name"]) for event in events] == [
        (kind, stage) for stage in ("tokenize", "train", "evaluate") for kind in ("START", "COMPLETE")
    ]
    made = {event["job"]["name"]: event for event in events if event["eventType"] == "COMPLETE"}
    (data,) = made["tokenize"]["outputs"]
    assert data["name"] in [one["name"] for one in made["train"]["inputs"]]
    assert data["facets"]["version"]["datasetVersion"] == json.loads((chain["data"] / "manifest.json").read_text())["digest"]
