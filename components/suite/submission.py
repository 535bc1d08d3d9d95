"""submission.zip as GLUE's server takes it: a file per test split, `index` and `prediction` on every line."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.tasks.table import TASKS, Task

WANTED = {file: rows for task in TASKS.values() for file, rows in task.submission.values()}
"""File -> rows, of all that GLUE's server wants in one zip."""
FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # of the zip format: the same predictions make the same bytes


def write_submission(path: Path, predictions: Mapping[str, Path]) -> dict[str, Any]:
    """Write the zip, sorted by name.

    Args:
        predictions: Task -> the file with its test predictions; one that is not there gives nothing.

    Returns:
        files: name -> rows.  missing: what the server wants besides.  other_rows: name -> the rows of GLUE's own split, where
        they are not as many.
    """
    files = {}
    for name, source in predictions.items():
        if source.is_file():
            table = pq.read_table(source)
            for split, (file, _) in TASKS[name].submission.items():
                rows = table.filter(pc.equal(table["split"].cast(pa.string()), split))
                if len(rows):
                    files[file] = submitted(TASKS[name], rows["idx"].to_numpy(), rows["prediction"].to_numpy())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(files):
            entry = zipfile.ZipInfo(file, FIRST_DAY)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, "".join(f"{line}\n" for line in files[file]), zipfile.ZIP_DEFLATED)
    rows_of = {file: len(lines) - 1 for file, lines in sorted(files.items())}
    return {
        "files": rows_of,
        "missing": sorted(WANTED.keys() - files),
        "other_rows": {file: WANTED[file] for file, rows in rows_of.items() if rows != WANTED[file]},
    }


def submitted(task: Task, indices: np.ndarray, predictions: np.ndarray) -> list[str]:
    """The lines of one file, in the order of the rows: label names or numbers, or scores within the task's range.

    Args:
        indices, predictions: (rows,), row numbers of the split; class numbers or scores.
    """
    order = np.argsort(indices)
    if task.is_regression:
        shown = [f"{score:.3f}" for score in np.clip(predictions[order], *task.label_range)]  # type: ignore[misc]
    else:
        shown = [task.label_names[number] if task.submits_names else str(number) for number in predictions[order]]
    return ["index\tprediction", *(f"{index}\t{answer}" for index, answer in zip(indices[order], shown, strict=True))]
