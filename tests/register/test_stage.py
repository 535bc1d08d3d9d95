"""Against a real MLflow store: what is registered answers raw text as the evaluated model did."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from components.artifacts.folders import Artifact
from components.errors import UserError
from components.register.stage import register
from components.tasks.table import TASKS, Task


def _examples(folder: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads((folder / "examples.json").read_text())["rows"]
    return rows


@pytest.mark.parametrize("task", ["sst2", "mnli", "stsb"])
def test_a_registered_model_takes_raw_text_and_answers_with_labels(
    tracking: str, trained: Callable[[str], Path], evaluated: Callable[[str], Path], task: str
) -> None:
    registered = register(model_dir=trained(task), evaluation_dir=evaluated(task))
    assert registered["name"] == f"sample-{task}"  # glue-TASK is for what somebody wrote
    assert registered["card"].startswith(f"# sample-{task} (generated data)\n")
    model = mlflow.pyfunc.load_model(f"models:/sample-{task}@challenger")
    examples = json.loads((evaluated(task) / "examples.json").read_text())
    columns = TASKS[task].text_columns
    texts = pd.DataFrame(examples["rows"]) if len(columns) > 1 else [row[columns[0]] for row in examples["rows"]]
    answers = model.predict(texts)
    assert answers["score"].tolist() == pytest.approx([answer["score"] for answer in examples["answers"]], abs=1e-4)
    if TASKS[task].label_names:
        assert answers["label"].tolist() == [answer["label"] for answer in examples["answers"]]
        probabilities = answers[[f"probability_{label}" for label in TASKS[task].label_names]]
        assert probabilities.sum(axis=1).tolist() == pytest.approx([1.0] * len(answers))
    else:
        assert list(answers.columns) == ["score"]


def test_the_version_says_what_it_is(
    tracking: str, tokenized: Callable[[str], Path], trained: Callable[[str], Path], evaluated: Callable[[str], Path]
) -> None:
    registered = register(model_dir=trained("rte"), evaluation_dir=evaluated("rte"), name="my-rte", alias="candidate")
    version = mlflow.MlflowClient().get_model_version_by_alias("my-rte", "candidate")
    manifest = json.loads((trained("rte") / "manifest.json").read_text())
    assert (str(version.version), version.run_id) == (registered["version"], registered["run_id"])
    assert version.tags["digest.model"] == manifest["digest"]
    assert (version.tags["task"], version.tags["generated"]) == ("sample-rte", Task.read(tokenized("rte")).generated)
    assert version.tags["digest.source"] != hashlib.sha256().hexdigest()
    assert version.tags["digest.data"] == manifest["inputs"]["data"]
    assert json.loads(version.tags["labels"]) == ["entailment", "not_entailment"]
    info = mlflow.models.get_model_info(registered["model_uri"])
    assert [column.name for column in info.signature.inputs] == ["sentence1", "sentence2"]
    example = mlflow.pyfunc.load_model(registered["model_uri"]).input_example
    assert example["sentence1"].tolist() == [row["sentence1"] for row in _examples(evaluated("rte"))]
    requirements = Path(mlflow.artifacts.download_artifacts(f"{registered['model_uri']}/requirements.txt")).read_text()
    assert "torch==" in requirements
    assert "+" not in requirements  # the same release for another processor


def test_rows_may_be_lists_of_dicts_and_a_missing_column_is_named(
    tracking: str, trained: Callable[[str], Path], evaluated: Callable[[str], Path]
) -> None:
    model = mlflow.pyfunc.load_model(register(model_dir=trained("rte"), evaluation_dir=evaluated("rte"))["model_uri"])
    assert len(model.predict([{"sentence1": "some dog ran .", "sentence2": "some animal ran ."}])) == 1
    with pytest.raises(mlflow.exceptions.MlflowException, match="sentence2"):
        model.predict(pd.DataFrame({"sentence1": ["some dog ran ."]}))


def test_an_evaluation_of_another_model_registers_nothing(
    tracking: str, trained: Callable[[str], Path], evaluated: Callable[[str], Path]
) -> None:
    with pytest.raises(UserError, match="is the evaluation of another model"):
        register(model_dir=trained("sst2"), evaluation_dir=evaluated("rte"), name="never-1")
    with pytest.raises(UserError, match="without / : %"):
        register(model_dir=trained("sst2"), evaluation_dir=evaluated("sst2"), name="a/b")
    assert mlflow.MlflowClient().search_registered_models("name LIKE 'never%'") == []


def test_a_model_that_answers_otherwise_than_evaluated_registers_nothing(
    tracking: str, trained: Callable[[str], Path], evaluated: Callable[[str], Path], tmp_path: Path
) -> None:
    evaluation = json.loads((evaluated("sst2") / "manifest.json").read_text())
    with Artifact(tmp_path / "e", "evaluate", {}, evaluation["inputs"], evaluation["origins"]).building() as folder:
        shutil.copytree(evaluated("sst2"), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        examples = json.loads((folder / "examples.json").read_text())
        examples["answers"][0]["score"] += 0.1
        (folder / "examples.json").write_text(json.dumps(examples))
    with pytest.raises(RuntimeError, match="the stored model answers"):
        register(model_dir=trained("sst2"), evaluation_dir=tmp_path / "e", name="never-2")
    assert mlflow.MlflowClient().search_registered_models("name LIKE 'never%'") == []


def test_an_evaluation_of_an_earlier_version_is_named(
    tracking: str, trained: Callable[[str], Path], evaluated: Callable[[str], Path], tmp_path: Path
) -> None:
    evaluation = json.loads((evaluated("sst2") / "manifest.json").read_text())
    with Artifact(tmp_path / "e", "evaluate", {}, evaluation["inputs"], evaluation["origins"]).building() as folder:
        shutil.copytree(evaluated("sst2"), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        results = json.loads((folder / "metrics.json").read_text())
        del results["training"]
        (folder / "metrics.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=r"e was written by an earlier version of components\.evaluate: evaluate again"):
        register(model_dir=trained("sst2"), evaluation_dir=tmp_path / "e", name="never-3")
    assert mlflow.MlflowClient().search_registered_models("name LIKE 'never%'") == []
