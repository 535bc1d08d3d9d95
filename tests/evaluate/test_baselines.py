from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.evaluate.baselines import baselines
from components.tasks.table import TASKS


def write(folder: Path, split: str, rows: list[list[int]], labels: list[float], types: list[list[int]] | None = None) -> None:
    columns = {"input_ids": pa.array(rows, pa.list_(pa.int32())), "label": pa.array(labels)}
    if types:
        columns["token_type_ids"] = pa.array(types, pa.list_(pa.int32()))
    pq.write_table(pa.table(columns), folder / f"{split}.parquet")


def test_a_label_that_a_word_decides_is_found_by_counting_words(tmp_path: Path) -> None:
    write(tmp_path, "train", [[1, 7], [1, 9, 4], [7], [3, 9]] * 10, [0, 1, 0, 1] * 10)
    write(tmp_path, "validation", [[7, 2], [9], [2, 9]], [0, 1, 1])
    assert baselines(TASKS["sst2"], tmp_path, "validation") == {"majority": pytest.approx(1 / 3), "bag_of_words": 1.0}


def test_a_score_that_words_add_up_to_is_found(tmp_path: Path) -> None:
    write(tmp_path, "train", [[5], [6], [5, 5], [6, 6], [5, 6]] * 20, [1.0, 2.0, 2.0, 4.0, 3.0] * 20)
    write(tmp_path, "validation", [[5], [6, 6], [5, 6]], [1.0, 4.0, 3.0])
    found = baselines(TASKS["stsb"], tmp_path, "validation")
    assert found["majority"] == 0.0
    assert found["bag_of_words"] > 0.95


def test_the_two_texts_of_a_pair_are_counted_apart(tmp_path: Path) -> None:
    rows, types = [[7, 9], [9, 7]] * 20, [[0, 1], [0, 1]] * 20
    write(tmp_path, "train", rows, [0, 1] * 20, types)
    write(tmp_path, "validation", rows[:2], [0, 1], types[:2])
    assert baselines(TASKS["rte"], tmp_path, "validation")["bag_of_words"] == 1.0


def test_training_data_with_one_label_gives_that_label(tmp_path: Path) -> None:
    write(tmp_path, "train", [[5], [6]], [1, 1])
    write(tmp_path, "validation", [[5], [6]], [1, 0])
    assert baselines(TASKS["sst2"], tmp_path, "validation") == {"majority": 0.5, "bag_of_words": 0.5}
