import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from components.artifacts.folders import Artifact
from components.artifacts.names import TRAINING
from components.errors import UserError
from components.evaluate.stage import evaluate, flat
from components.register.stage import register
from components.tasks.metrics import measure
from components.tasks.table import TASKS
from components.training.objectives import Classification


@pytest.mark.parametrize("task", ["sst2", "mnli", "stsb", "mrpc"])
def test_predictions_and_metrics_agree(evaluated: Callable[[str], Path], task: str) -> None:
    results = json.loads((evaluated(task) / "metrics.json").read_text())
    predictions = pq.read_table(evaluated(task) / "predictions.parquet").to_pandas()
    assert set(results["splits"]) == {split for split in TASKS[task].files if split.startswith("validation")}
    for split, result in results["splits"].items():
        rows = predictions[predictions["split"] == split]
        assert len(rows) == result["rows"] == 50
        assert measure(TASKS[task], rows["label"].to_numpy(), rows["prediction"].to_numpy()) == result["metrics"]
        if TASKS[task].label_names:
            scores = np.stack(rows["scores"].to_list())
            np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
            assert (scores.argmax(1) == rows["prediction"]).all()
            assert np.sum(result["confusion_matrix"]) == 50
            assert sum(bin["rows"] for bin in result["calibration"]["bins"]) == 50
            assert set(result["curves"]) == set(TASKS[task].label_names[1 if len(TASKS[task].label_names) == 2 else 0 :])
            assert {f"{split}_auc", f"{split}_average_precision", f"{split}_ece"} < set(flat(results))
        else:
            assert "confusion_matrix" not in result
        for name, (low, high) in result["intervals"].items():
            assert low <= result["metrics"][name] <= high
        assert sum(part["rows"] for part in result["slices"]["length"]) == 50
        assert result["robustness"]["clean"] == pytest.approx(np.mean(list(result["metrics"].values())), abs=1e-5)
    low, high = results["interval"]
    assert low <= results["score"] <= high
    assert set(results["baselines"]) == {"majority", "bag_of_words"}
    assert {"score", "score_low", "score_high", "baseline_majority"} < set(flat(results))
    assert all(np.isfinite(value) for value in flat(results).values())


def test_errors_are_wrong_answers_with_their_texts(evaluated: Callable[[str], Path], tokenized: Callable[[str], Path]) -> None:
    errors = json.loads((evaluated("rte") / "errors.json").read_text())
    assert errors
    assert all(error["label"] != error["prediction"] and error["probability"] >= 0.5 for error in errors)
    assert all(" | " in error["text"] for error in errors)
    off = [abs(error["label"] - error["prediction"]) for error in json.loads((evaluated("stsb") / "errors.json").read_text())]
    assert off == sorted(off, reverse=True)


def test_a_model_that_has_diverged_is_not_measured(
    trained: Callable[[str], Path], tokenized: Callable[[str], Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    manifest = json.loads((trained("sst2") / "manifest.json").read_text())
    with Artifact(tmp_path / "m", "train", manifest["parameters"], manifest["inputs"], record=TRAINING).building() as folder:
        shutil.copytree(trained("sst2"), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        weights = load_file(folder / "model.safetensors")
        weights["classifier.bias"].fill_(float("nan"))
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="it has diverged"):
        evaluate(model_dir=tmp_path / "m", data_dir=tokenized("sst2"), output_dir=tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_a_model_of_an_earlier_version_is_named(
    trained: Callable[[str], Path], tokenized: Callable[[str], Path], tmp_path: Path
) -> None:
    with Artifact(tmp_path / "m", "train", {}, {}).building() as folder:
        shutil.copytree(trained("sst2"), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    with pytest.raises(UserError, match=r"m was written by an earlier version of components\.train: train again"):
        evaluate(model_dir=tmp_path / "m", data_dir=tokenized("sst2"), output_dir=tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_noise_may_be_left_out(tokenized: Callable[[str], Path], trained: Callable[[str], Path], tmp_path: Path) -> None:
    folders: dict[str, Any] = {"model_dir": trained("sst2"), "data_dir": tokenized("sst2")}
    evaluate(**folders, output_dir=tmp_path / "e", robustness_rows=0)
    results = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert "robustness" not in results["splits"]["validation"]
    with pytest.raises(UserError, match="robustness_rows is -1"):
        evaluate(**folders, output_dir=tmp_path / "f", robustness_rows=-1)


def test_in_bf16_answers_are_close_and_the_examples_are_as_served(
    tracking: str,
    evaluated: Callable[[str], Path],
    tokenized: Callable[[str], Path],
    trained: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    folders: dict[str, Any] = {"model_dir": trained("mnli"), "data_dir": tokenized("mnli")}
    evaluate(**folders, output_dir=tmp_path / "e", robustness_rows=10, evaluation_precision="bf16", predict_test=False)
    scores = [
        np.stack(pq.read_table(folder / "predictions.parquet")["scores"].to_pylist())
        for folder in (tmp_path / "e", evaluated("mnli"))
    ]
    assert 0 < np.abs(scores[0] - scores[1]).max() < 0.02
    one, other = (
        json.loads((folder / "examples.json").read_text())["answers"] for folder in (tmp_path / "e", evaluated("mnli"))
    )
    assert [answer["score"] for answer in one] == pytest.approx([answer["score"] for answer in other], abs=1e-5)
    assert register(model_dir=trained("mnli"), evaluation_dir=tmp_path / "e")["version"] == "1"
    assert "Measured in bf16; as it is served, in fp32, some answers may differ." in (tmp_path / "e" / "summary.md").read_text()
    assert "in bf16" not in (evaluated("mnli") / "summary.md").read_text()
    assert (evaluated("mnli") / "test_predictions.parquet").is_file()
    assert not (tmp_path / "e" / "test_predictions.parquet").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has tf32")
def test_a_cpu_says_that_it_has_no_tf32(
    evaluated: Callable[[str], Path], tokenized: Callable[[str], Path], trained: Callable[[str], Path], tmp_path: Path
) -> None:
    evaluate(model_dir=trained("rte"), data_dir=tokenized("rte"), output_dir=tmp_path / "e", evaluation_precision="tf32")
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["precision"] == "fp32"
    assert (tmp_path / "e" / "predictions.parquet").read_bytes() == (evaluated("rte") / "predictions.parquet").read_bytes()


def test_an_evaluation_that_runs_out_of_memory_takes_smaller_batches(
    evaluated: Callable[[str], Path],
    tokenized: Callable[[str], Path],
    trained: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In each of its passes: over the splits, under noise, over the texts with noise."""
    real = Classification.outputs

    def outputs(self: Any, model: Any, batch: Any, embeddings: Any = None) -> Any:
        if batch.attention_mask.sum() > 300:
            raise torch.OutOfMemoryError("by hand")
        return real(self, model, batch, embeddings)

    monkeypatch.setattr(Classification, "outputs", outputs)
    evaluate(model_dir=trained("rte"), data_dir=tokenized("rte"), output_dir=tmp_path / "e")
    assert capsys.readouterr().err.count("out of memory with 2048 tokens at a time: going on with 1024") >= 5
    one, other = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "e", evaluated("rte")))
    assert flat(one) == pytest.approx(flat(other), abs=1e-5)


def test_the_model_in_its_folder_gives_these_predictions(
    evaluated: Callable[[str], Path], trained: Callable[[str], Path], tokenized: Callable[[str], Path]
) -> None:
    """One example at a time, without padding, through transformers alone."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(trained("rte")).eval()
    rows = pq.read_table(tokenized("rte") / "validation.parquet").to_pylist()
    predictions = pq.read_table(evaluated("rte") / "predictions.parquet").to_pylist()
    for row, predicted in zip(rows[:20], predictions[:20], strict=True):
        inputs = {name: torch.tensor([row[name]]) for name in ("input_ids", "token_type_ids")}
        probabilities = model(**inputs).logits.softmax(-1)[0].tolist()
        assert predicted["scores"] == pytest.approx(probabilities, abs=1e-5)
        assert (predicted["idx"], predicted["label"]) == (row["idx"], row["label"])


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("task", ["mnli", "stsb"])
def test_the_report_needs_nothing_else_and_shows_the_score(evaluated: Callable[[str], Path], task: str) -> None:
    html = (evaluated(task) / "report.html").read_text()
    page = _Links()
    page.feed(html)
    assert [link for link in page.links if not link.startswith("#")] == []
    assert not re.search(r"url\((?!#)", html)
    results = json.loads((evaluated(task) / "metrics.json").read_text())
    assert f"{results['score']:.4f}" in page.text
    assert html.count("<svg") == {"mnli": 6, "stsb": 3}[task]
    assert "Worst errors" in page.text
    assert ("calibration error" in page.text) == (task == "mnli")
    low, high = results["interval"]
    assert f"{low:.4f} to {high:.4f}" in page.text
    examples = json.loads((evaluated(task) / "examples.json").read_text())
    assert examples["rows"][0][TASKS[task].text_columns[0]] in page.text


def test_a_model_of_other_labels_is_refused(
    trained: Callable[[str], Path], tokenized: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="has the labels"):
        evaluate(model_dir=trained("sst2"), data_dir=tokenized("rte"), output_dir=tmp_path / "e")
    with pytest.raises(UserError, match=r"written by components\.tokenize, not by components\.train"):
        evaluate(model_dir=tokenized("sst2"), data_dir=tokenized("sst2"), output_dir=tmp_path / "e")
    assert list(tmp_path.iterdir()) == []
