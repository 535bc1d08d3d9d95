"""Which validation texts also stand in training, and what the score is without them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.names import TEXT_DIGEST
from components.artifacts.splits import find_split
from components.tasks.metrics import measure, score
from components.tasks.table import Task


def trained_on(data_dir: Path) -> np.ndarray:
    """(texts,) int64, sorted: the digests of the training split's texts, each once."""
    columns = [pq.read_table(path, columns=[TEXT_DIGEST])[TEXT_DIGEST].to_numpy() for path in find_split(data_dir, "train")]
    return np.unique(np.concatenate(columns))


def write_trained_on(path: Path, digests: np.ndarray) -> None:
    pq.write_table(pa.table({TEXT_DIGEST: digests}), path, compression="zstd")


def also_in_training(
    task: Task, labels: np.ndarray, predictions: np.ndarray, digests: np.ndarray, trained: np.ndarray
) -> dict[str, Any]:
    """How many of a split's rows have texts that the model was trained on, and the score on the others.

    Args:
        labels, predictions: (rows,), class numbers or scores.
        digests: (rows,) of the rows' texts.
        trained: What `trained_on` returns.

    Returns:
        rows.  without: {"rows", "metrics", "score"} of the others, where there are both.
    """
    seen = trained[np.minimum(np.searchsorted(trained, digests), len(trained) - 1)] == digests
    counted: dict[str, Any] = {"rows": int(seen.sum())}
    if 0 < counted["rows"] < len(seen):
        metrics = measure(task, labels[~seen], predictions[~seen])
        counted["without"] = {"rows": int((~seen).sum()), "metrics": metrics, "score": score(metrics)}
    return counted
