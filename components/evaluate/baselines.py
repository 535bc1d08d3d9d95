"""What a model must beat to have learnt anything: the most frequent answer, and a linear model over word counts."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix, vstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from components.artifacts.splits import find_split
from components.tasks.metrics import measure, score
from components.tasks.table import Task
from components.training.data import ROWS_AT_ONCE, TOKEN_COLUMNS

MOST_ROWS = 500_000
"""That words are counted in; of more training rows, so many are drawn."""
NEWTON_STEPS = 10  # small tasks are at the optimum after seven; after ten, 400,000 pairs are within half a point of it


def baselines(task: Task, data_dir: Path, splits: Sequence[str]) -> dict[str, Any]:
    """Made of the training split, all its files, and measured on `splits`.

    Returns:
        baselines: the scores of {"majority", "bag_of_words"}, each the mean over the splits, as the model's own.
        baseline_rows: how many training rows each was made of.
    """
    labels, drawn_labels, counts = [], [], []
    for rows, drawn in _drawn(data_dir, MOST_ROWS):
        labels.append(rows["label"].to_numpy())
        drawn_labels.append(drawn["label"].to_numpy())
        counts.append(_counts(drawn))
    every, known = np.concatenate(labels), np.concatenate(drawn_labels)
    usual = every.mean(dtype=np.float64) if task.is_regression else np.bincount(every).argmax()
    words = _stacked(counts, max(block.shape[1] for block in counts))
    linear = None  # one label alone needs no words
    if task.is_regression or len(np.unique(known)) > 1:
        linear = Ridge() if task.is_regression else LogisticRegression(solver="newton-cg", max_iter=NEWTON_STEPS)
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            linear.fit(words, known)
    scores = []
    for split in splits:
        tests = list(_batches(data_dir, split))
        expected = np.concatenate([rows["label"].to_numpy() for rows in tests])
        majority = np.full(len(expected), usual)
        guesses = linear.predict(_stacked(map(_counts, tests), words.shape[1])) if linear else majority
        scores.append([score(measure(task, expected, answers)) for answers in (majority, guesses)])
    names = ("majority", "bag_of_words")
    return {
        "baselines": dict(zip(names, np.mean(scores, axis=0).tolist(), strict=True)),
        "baseline_rows": dict(zip(names, (len(every), len(known)), strict=True)),
    }


def _batches(data_dir: Path, split: str) -> Iterator[pa.RecordBatch]:
    """The split's tokens and labels, some thousand rows at a time."""
    for path in find_split(data_dir, split):
        file = pq.ParquetFile(path)
        columns = [name for name in (*TOKEN_COLUMNS, "label") if name in file.schema_arrow.names]
        yield from file.iter_batches(ROWS_AT_ONCE, columns=columns)


def _drawn(data_dir: Path, most: int) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """The training rows, piece by piece, and those drawn of them: of all rows at most so many, any as likely as any other."""
    left = sum(pq.read_metadata(path).num_rows for path in find_split(data_dir, "train"))
    wanted, random = min(left, most), np.random.default_rng(0)
    for rows in _batches(data_dir, "train"):
        share = random.hypergeometric(wanted, left - wanted, len(rows))
        yield rows, rows.take(pa.array(np.sort(random.choice(len(rows), share, replace=False))))
        left, wanted = left - len(rows), wanted - share


def _counts(rows: pa.RecordBatch) -> csr_matrix:
    """How often each token occurs in each row; apart for the two texts of a pair, where the model tells them apart."""
    ids = rows["input_ids"]
    columns = 2 * ids.flatten().to_numpy()
    if "token_type_ids" in rows.schema.names:
        columns = columns + rows["token_type_ids"].flatten().to_numpy()
    offsets = ids.offsets.to_numpy() - ids.offsets[0].as_py()
    counts = csr_matrix((np.ones(len(columns)), columns, offsets), (len(rows), columns.max(initial=0) + 1))
    counts.sum_duplicates()
    return counts


def _stacked(counts: Iterable[csr_matrix], width: int) -> csr_matrix:
    """One matrix of many, with so many columns: a word that was never seen in training counts for nothing."""
    blocks = list(counts)
    for block in blocks:
        block.resize(block.shape[0], width)
    return vstack(blocks, format="csr")
