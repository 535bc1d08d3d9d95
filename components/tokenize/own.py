"""The user's own data: a file, of which a tenth is held out, or a folder with files named train and validation (and test)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.artifacts import file_digest
from components.errors import UserError
from components.tasks import Task
from components.tokenize.files import SUFFIXES, find_split, read_columns
from components.tokenize.rows import LABEL, Source, Tables, as_float, checked

MOST_LABELS = 1000
HELD_OUT = 10
"""One row of so many is held out where there is no validation split."""


def read_own(name: str, path: Path, text_columns: tuple[str, ...], label_column: str) -> Source:
    """A file, of which a tenth is held out, or a folder with files named train and validation (and test)."""
    if not label_column:
        raise UserError("--text-columns goes with --label-column: name the column that holds the label")
    if len(text_columns) > 2:
        raise UserError(f"--text-columns names {len(text_columns)} columns: give one, or two for sentence pairs")
    if path.is_dir():
        files = {split: paths for split in ("train", "validation", "test") if (paths := find_split(path, split))}
        if "train" not in files:
            raise UserError(f"{path} has no train.parquet, train.csv or train.tsv")
    elif path.is_file() and path.suffix in SUFFIXES:
        files = {"train": [path]}
    else:
        raise UserError(f"no file '{path}': give a {', '.join(SUFFIXES)} file, or a folder with a train file")

    def tables(paths: list[Path], columns: tuple[str, ...] = (*text_columns, label_column)) -> Iterator[pa.Table]:
        names = [*text_columns, LABEL] if len(columns) > 1 else [LABEL]
        return (table.rename_columns(names) for part in paths for table in read_columns(part, columns))

    task = _own_task(name, text_columns, tables(files["train"], (label_column,)), path)
    found = Source(task, inputs={part.name: file_digest(part) for parts in files.values() for part in parts})
    found.places = {split: str(parts[0]) for split, parts in files.items() if len(parts) == 1}
    read: dict[str, Tables] = {split: partial(checked, found, split, partial(tables, parts)) for split, parts in files.items()}
    if "validation" not in read:
        whole = read["train"]
        read |= {split: partial(_part, whole, split, path) for split in ("train", "validation")}
    found.splits = {split: read[split] for split in ("train", "validation", "test") if split in read}
    return found


def _part(whole: Tables, split: str, path: Path) -> Iterator[pa.Table]:
    """What is left of the training rows, or what is held out of them: one of each ten, drawn; of the first ten the second."""
    random, start, drawn, num_rows = Random(0), 0, 1, 0
    for table in whole():
        held_out = np.zeros(len(table), bool)
        while drawn < start + len(table):
            held_out[drawn - start] = True
            drawn = drawn - drawn % HELD_OUT + HELD_OUT + random.randrange(HELD_OUT)
        start += len(table)
        part = table.filter(pa.array(held_out if split == "validation" else ~held_out))
        num_rows += len(part)
        if len(part):
            yield part
    if not num_rows or start < 2:
        raise UserError(f"{path} has {start} row: too few to hold some out for validation")


def _own_task(name: str, text_columns: tuple[str, ...], labels: Iterator[pa.Table], path: Path) -> Task:
    """A regression if any label has a fraction, else a classification over the labels that occur, in their order."""
    values: set[str] = set()
    only_numbers, fractions = True, False
    for table in labels:
        new = {str(value) for value in pc.unique(table[LABEL]).to_pylist() if value is not None}
        numbers = [as_float(value) for value in new]
        only_numbers &= None not in numbers
        fractions |= any(number is not None and not number.is_integer() for number in numbers)
        if len(values) <= MOST_LABELS:
            values |= new
    if only_numbers and fractions:
        return Task(name, text_columns, (), ("pearson", "spearman"))
    if len(values) < 2:
        raise UserError(f"{path}: the label column has {len(values)} different value(s): a classification needs two or more")
    names = sorted(values, key=lambda value: (as_float(value) is None, as_float(value) or 0.0, value))
    if len(names) > MOST_LABELS:
        raise UserError(f"{path}: the label column has {len(names)} different values or more: is it the label?")
    return Task(name, text_columns, tuple(names), ("accuracy", "f1") if len(names) == 2 else ("accuracy", "macro_f1"))
