"""What every source ends as: {split: tables of the text columns, `label` and `idx`}, checked as they are read.

Labels are int64 class numbers or float32 scores, -1 where a split has none (the Hugging Face convention). Nothing is read
whole: a source may be larger than the memory. Nor need all of it be read: where several share the work, each passes over what
is not its own.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa

from components.errors import UserError
from components.tasks.table import UNLABELLED, Task

LABEL = "label"


@dataclass(frozen=True)
class Stretch:
    """Rows that follow one another in a split: a row group of Parquet, or some thousand rows of text. Read when asked."""

    num_rows: int
    tables: Callable[[], Iterable[pa.Table]]
    """In tables of some thousand rows. Raises UserError at the first row that does not fit; it names the file and the line."""


Stretches = Callable[[], Iterator[Stretch]]
"""A split from its first row on, at every call."""


@dataclass
class Source:
    """The splits of a task, and what they are read from."""

    task: Task
    splits: dict[str, Stretches] = field(default_factory=dict)
    digests: dict[str, Callable[[], str]] = field(default_factory=dict)
    """File -> what finds its sha256, for which all of it is read."""
    places: dict[str, str] = field(default_factory=dict)
    """Split -> how to name it to the user."""
    num_skipped: int = 0
    """Malformed rows left out so far, on request."""
    generator: dict[str, Any] = field(default_factory=dict)
    """What made the rows, where nobody wrote them, and all that it takes to make them again."""

    @cached_property
    def inputs(self) -> dict[str, str]:
        """File -> sha256."""
        return {name: digest() for name, digest in self.digests.items()}


def tables_of(stretches: Iterable[Stretch]) -> Iterator[pa.Table]:
    return (table for stretch in stretches for table in stretch.tables())


def table_of(task: Task, texts: Sequence[Sequence[str]], labels: Sequence[float]) -> pa.Table:
    columns = zip(*texts, strict=True) if texts else ([] for _ in task.text_columns)
    return pa.table({**dict(zip(task.text_columns, columns, strict=True)), "label": labels})


def checked(found: Source, split: str, stretches: Stretches) -> Iterator[Stretch]:
    """The rows with labels as numbers and `idx`, the row number; UserError for the first row that does not fit."""
    where = found.places.get(split, f"the {split} split of '{found.task.name}'")
    start = 0
    for stretch in stretches():
        yield Stretch(stretch.num_rows, partial(_checked, found.task, split, stretch, where, start))
        start += stretch.num_rows
    if not start:
        raise UserError(f"{where}: no rows, the {split} split is empty")


def _checked(task: Task, split: str, stretch: Stretch, where: str, start: int) -> Iterator[pa.Table]:
    kind = pa.float32() if task.is_regression else pa.int64()
    for table in stretch.tables():
        if not len(table):
            continue
        for column in task.text_columns:
            if not pa.types.is_string(table[column].type) and not pa.types.is_large_string(table[column].type):
                raise UserError(f"{where}: column {column} is {table[column].type}, not text")
            if table[column].null_count:
                row = start + table[column].to_pylist().index(None)
                raise UserError(f"{where}, row {row}: column {column} is empty (null)")
        labels = _labels(task, split, table, where, start)
        texts = {name: table[name].cast(pa.string()) for name in task.text_columns}
        rows = pa.array(np.arange(start, start + len(table), dtype=np.int32))
        yield pa.table({**texts, LABEL: pa.array(labels, kind), "idx": rows})
        start += len(table)


def _labels(task: Task, split: str, table: pa.Table, where: str, start: int) -> np.ndarray:
    """(rows,) class numbers or scores; every value that occurs is looked at once."""
    if LABEL not in table.column_names:
        return np.full(len(table), UNLABELLED)
    encoded = table[LABEL].combine_chunks().dictionary_encode(null_encoding="encode")
    which = encoded.indices.to_numpy()
    numbers: list[float] = []
    for number, value in enumerate(encoded.dictionary.to_pylist()):
        if split.startswith("test") and _is_unlabelled(value):
            numbers.append(UNLABELLED)
        else:  # values come in the order of their first rows
            numbers.append(number_of(task, value, f"{where}, row {start + int(np.argmax(which == number))}"))
    return np.array(numbers)[which]


def _is_unlabelled(value: object) -> bool:
    return value is None or str(value) in ("", "-1", "-1.0")


def number_of(task: Task, value: object, where: str) -> float:
    """A label as its number: a class by name or number, or a score within the task's range."""
    number = as_float(str(value))
    if task.is_regression:
        low, high = task.label_range or (-math.inf, math.inf)
        if number is None or not math.isfinite(number) or not low <= number <= high:
            raise UserError(f"{where}: label '{value}' is no number from {low:g} to {high:g}")
        return number
    if str(value) in task.label_names:
        return task.label_names.index(str(value))
    named_by_numbers = any(as_float(name) is not None for name in task.label_names)
    if number is None or named_by_numbers or number not in range(len(task.label_names)):
        raise UserError(f"{where}: label '{value}' is none of {', '.join(task.label_names)}")
    return int(number)


def as_float(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
