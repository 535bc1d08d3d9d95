"""The floor that a model is measured against: of every row of every file, in whatever order they stand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.evaluate import baselines as under_test
from components.evaluate.baselines import _drawn, baselines
from components.evaluate.wording import caveats
from components.tasks.table import TASKS


def write(
    folder: Path, split: str, rows: list[list[int]], labels: Sequence[float], types: list[list[int]] | None = None
) -> None:
    columns = {"input_ids": pa.array(rows, pa.list_(pa.int32())), "label": pa.array(labels)}
    if types:
        columns["token_type_ids"] = pa.array(types, pa.list_(pa.int32()))
    pq.write_table(pa.table(columns), folder / f"{split}.parquet")


def floor(folder: Path, task: str) -> dict[str, float]:
    scores: dict[str, float] = baselines(TASKS[task], folder, ["validation"])["baselines"]
    return scores


def test_a_label_that_a_word_decides_is_found_by_counting_words(tmp_path: Path) -> None:
    write(tmp_path, "train", [[1, 7], [1, 9, 4], [7], [3, 9]] * 10, [0, 1, 0, 1] * 10)
    write(tmp_path, "validation", [[7, 2], [9], [2, 9]], [0, 1, 1])
    assert floor(tmp_path, "sst2") == {"majority": pytest.approx(1 / 3), "bag_of_words": 1.0}


def test_a_score_that_words_add_up_to_is_found(tmp_path: Path) -> None:
    write(tmp_path, "train", [[5], [6], [5, 5], [6, 6], [5, 6]] * 20, [1.0, 2.0, 2.0, 4.0, 3.0] * 20)
    write(tmp_path, "validation", [[5], [6, 6], [5, 6]], [1.0, 4.0, 3.0])
    found = floor(tmp_path, "stsb")
    assert found["majority"] == 0.0
    assert found["bag_of_words"] > 0.95


def test_the_two_texts_of_a_pair_are_counted_apart(tmp_path: Path) -> None:
    rows, types = [[7, 9], [9, 7]] * 20, [[0, 1], [0, 1]] * 20
    write(tmp_path, "train", rows, [0, 1] * 20, types)
    write(tmp_path, "validation", rows[:2], [0, 1], types[:2])
    assert floor(tmp_path, "rte")["bag_of_words"] == 1.0


def test_training_data_with_one_label_gives_that_label(tmp_path: Path) -> None:
    write(tmp_path, "train", [[5], [6]], [1, 1])
    write(tmp_path, "validation", [[5], [6]], [1, 0])
    assert floor(tmp_path, "sst2") == {"majority": 0.5, "bag_of_words": 0.5}


def test_rows_that_are_sorted_by_label_over_several_files_all_count(tmp_path: Path) -> None:
    """The first file alone would have 0 for the usual answer, and 0 for the meaning of every word."""
    for part, (label, word) in enumerate([(0, 7), (1, 9), (1, 11)]):
        write(tmp_path, f"train-{part:05}-of-00003", [[1, word]] * 40, [label] * 40)
    write(tmp_path, "validation", [[7], [7], [9], [11], [11]], [0, 0, 1, 1, 1])
    found = baselines(TASKS["sst2"], tmp_path, ["validation"])
    assert found["baselines"] == {"majority": pytest.approx(0.6), "bag_of_words": 1.0}
    assert found["baseline_rows"] == {"majority": 120, "bag_of_words": 120}


def test_rows_after_the_first_fifty_thousand_of_a_file_count(tmp_path: Path) -> None:
    write(tmp_path, "train", [[7]] * 50_000 + [[9]] * 60_000, [0] * 50_000 + [1] * 60_000)
    write(tmp_path, "validation", [[7], [7], [9], [9], [9]], [0, 0, 1, 1, 1])
    assert floor(tmp_path, "sst2") == {"majority": pytest.approx(0.6), "bag_of_words": 1.0}


def test_the_pairs_and_the_scores_of_every_file_count(tmp_path: Path) -> None:
    for part, label in enumerate((0, 1)):
        rows = [[7, 9], [9, 7]][part]
        write(tmp_path, f"train-{part:05}-of-00002", [rows] * 20, [label] * 20, [[0, 1]] * 20)
    write(tmp_path, "validation", [[7, 9], [9, 7]], [0, 1], [[0, 1]] * 2)
    assert floor(tmp_path, "rte")["bag_of_words"] == 1.0

    folder = tmp_path / "scores"
    folder.mkdir()
    for part, (word, score) in enumerate([(5, 1.0), (6, 2.0), (8, 4.0)]):
        write(folder, f"train-{part:05}-of-00003", [[word], [word, word]] * 20, [score, score] * 20)
    write(folder, "validation", [[5], [6], [8]], [1.0, 2.0, 4.0])
    assert floor(folder, "stsb")["bag_of_words"] > 0.95


def test_the_score_is_the_mean_over_the_splits_as_the_models_is(tmp_path: Path) -> None:
    write(tmp_path, "train", [[7], [9], [9]] * 20, [0, 1, 1] * 20)
    write(tmp_path, "validation_matched", [[9], [9]], [1, 1])
    write(tmp_path, "validation_mismatched", [[7], [9], [5], [5]], [0, 1, 0, 0])
    found = baselines(TASKS["mnli"], tmp_path, ["validation_matched", "validation_mismatched"])["baselines"]
    assert found == {"majority": (1.0 + 0.25) / 2, "bag_of_words": (1.0 + 0.5) / 2}


def test_of_too_many_rows_some_are_drawn_from_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted by label; each tenth of the rows is drawn from, about alike, and the same rows again."""
    for part in range(2):
        rows = [[row] for row in range(part * 25_000, (part + 1) * 25_000)]
        write(tmp_path, f"train-{part:05}-of-00002", rows, [part] * 25_000)
    write(tmp_path, "validation", [[1], [4000]], [0, 1])
    drawn = [rows["input_ids"].flatten().to_numpy() for _, rows in _drawn(tmp_path, 5000)]
    words = np.concatenate(drawn)
    assert len(words) == len(set(words)) == 5000
    tenths = np.bincount(words // 5000)
    assert all(abs(tenths - 500) < 5 * (5000 * 0.1 * 0.9) ** 0.5)
    assert words.tolist() == np.concatenate([rows["input_ids"].flatten() for _, rows in _drawn(tmp_path, 5000)]).tolist()

    monkeypatch.setattr(under_test, "MOST_ROWS", 5000)
    found = baselines(TASKS["sst2"], tmp_path, ["validation"])
    assert found["baseline_rows"] == {"majority": 50_000, "bag_of_words": 5000}
    assert caveats({"splits": {}, "precision": "fp32", **found}) == [
        "Bag of words was trained on 5,000 rows, drawn from all 50,000."
    ]
