"""What a model must beat to have learnt anything: the most frequent answer, and a linear model over word counts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression, Ridge

from components.artifacts.splits import find_split
from components.tasks.metrics import measure, score
from components.tasks.table import Task

NUM_TRAINING_ROWS = 50_000  # enough for a linear model, and seconds on one core


def baselines(task: Task, data_dir: Path, split: str) -> dict[str, float]:
    """Scores on `split` of {"majority", "bag_of_words"}, trained on the (first rows of the) training split."""
    train = pa.table(next(pq.ParquetFile(find_split(data_dir, "train")[0]).iter_batches(NUM_TRAINING_ROWS)))
    test = pa.concat_tables(map(pq.read_table, find_split(data_dir, split)))
    labels, expected = train["label"].to_numpy(), test["label"].to_numpy()
    if task.is_regression:
        usual, linear = labels.mean(), Ridge()
    else:
        usual, linear = np.bincount(labels).argmax(), LogisticRegression(max_iter=1000)
    width = 1 + max(max(_tokens(table).max() for table in (train, test)), 0)
    if task.is_regression or len(np.unique(labels)) > 1:
        linear.fit(_counts(train, width), labels)
        guesses = linear.predict(_counts(test, width))
    else:
        guesses = np.full(len(test), usual)
    return {
        "majority": score(measure(task, expected, np.full(len(test), usual))),
        "bag_of_words": score(measure(task, expected, guesses)),
    }


def _tokens(table) -> np.ndarray:  # type: ignore[no-untyped-def]  # pyarrow has no types
    return np.asarray(table["input_ids"].combine_chunks().flatten())


def _counts(table, width: int) -> csr_matrix:  # type: ignore[no-untyped-def]
    """How often each token occurs in each row; apart for the two texts of a pair, where the model tells them apart."""
    ids = table["input_ids"].combine_chunks()
    columns = _tokens(table).astype(np.int64)
    segments = 1
    if "token_type_ids" in table.column_names:
        columns = columns + width * np.asarray(table["token_type_ids"].combine_chunks().flatten())
        segments = 2
    offsets = ids.offsets.to_numpy() - ids.offsets[0].as_py()
    counts = csr_matrix((np.ones(len(columns), np.float32), columns, offsets), shape=(len(table), segments * width))
    counts.sum_duplicates()
    return counts
