from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from components.evaluate.unlabelled import write_test_predictions
from components.tasks.table import TASKS


def test_test_splits_have_the_models_own_predictions(
    evaluated: Callable[[str], Path], trained: Callable[[str], Path], tokenized: Callable[[str], Path]
) -> None:
    """One example at a time, through transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(trained("mnli")).eval()
    predicted = pq.read_table(evaluated("mnli") / "test_predictions.parquet").to_pylist()
    for split in ("test_ax", "test_matched", "test_mismatched"):
        rows = pq.read_table(tokenized("mnli") / f"{split}.parquet").to_pylist()
        answers = [answer for answer in predicted if answer["split"] == split]
        assert [answer["idx"] for answer in answers] == [row["idx"] for row in rows] == list(range(50))
        for row, answer in zip(rows[:10], answers, strict=False):
            inputs = {name: torch.tensor([row[name]]) for name in ("input_ids", "token_type_ids")}
            probabilities = model(**inputs).logits.softmax(-1)[0]
            assert answer["scores"] == pytest.approx(probabilities.tolist(), abs=1e-5)
            assert answer["prediction"] == probabilities.argmax()


def test_without_a_test_split_there_is_no_file(tmp_path: Path) -> None:
    write_test_predictions(tmp_path / "test_predictions.parquet", torch.nn.Module(), tmp_path, 0, TASKS["rte"])  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
