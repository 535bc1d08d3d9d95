"""The user's own data: a file, of which a tenth is held out, or a folder with files named train and validation (and test)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.artifacts.folders import file_digest
from components.artifacts.splits import SUFFIXES, find_split
from components.errors import UserError
from components.tasks.table import Task
from components.tokenize.files import read_columns
from components.tokenize.rows import LABEL, Source, Stretch, Stretches, as_float, checked, tables_of

MOST_LABELS = 1000
HELD_OUT = 10
"""One row of so many is held out where there is no validation split."""


def read_own(name: str, path: Path, text_columns: tuple[str, ...], label_column: str) -> Source:
    """A file, of which a tenth is held out, or a folder with files named train and validation (and test)."""
    if path.is_dir():
        files = {split: paths for split in ("train", "validation", "test") if (paths := find_split(path, split))}
        if "train" not in files:
            raise UserError(f"{path} has no train.parquet, train.csv or train.tsv")
    elif path.is_file() and path.suffix in SUFFIXES:
        files = {"train": [path]}
    else:
        raise UserError(f"no file '{path}': give a {', '.join(SUFFIXES)} file, or a folder with a train file")

    labels = tables_of(_stretches(files["train"], (label_column,)))
    found = Source(_own_task(name, text_columns, labels, path))
    found.digests = {part.name: partial(file_digest, part) for parts in files.values() for part in parts}
    found.places = {split: str(parts[0]) for split, parts in files.items() if len(parts) == 1}
    columns = (*text_columns, label_column)
    read: dict[str, Stretches] = {
        split: partial(checked, found, split, partial(_stretches, parts, columns)) for split, parts in files.items()
    }
    if "validation" not in read:
        whole = read["train"]
        read |= {split: partial(_part, whole, split, path) for split in ("train", "validation")}
    found.splits = {split: read[split] for split in ("train", "validation", "test") if split in read}
    return found


def _stretches(paths: list[Path], columns: tuple[str, ...]) -> Iterator[Stretch]:
    """The text columns under their own names, the last one as the label."""
    names = [*columns[:-1], LABEL]
    for path in paths:
        for stretch in read_columns(path, columns):
            yield Stretch(stretch.num_rows, partial(_renamed, stretch, names))


def _renamed(stretch: Stretch, names: list[str]) -> Iterator[pa.Table]:
    return (table.rename_columns(names) for table in stretch.tables())


def _part(whole: Stretches, split: str, path: Path) -> Iterator[Stretch]:
    """What is left of the training rows, or what is held out of them: one of each ten, drawn; of the first ten the second."""
    random, start, drawn = Random(0), 0, 1
    for stretch in whole():
        held_out = np.zeros(stretch.num_rows, bool)
        while drawn < start + len(held_out):
            held_out[drawn - start] = True
            drawn = drawn - drawn % HELD_OUT + HELD_OUT + random.randrange(HELD_OUT)
        start += len(held_out)
        kept = held_out if split == "validation" else ~held_out
        yield Stretch(int(kept.sum()), partial(_kept, stretch, kept))
    if start < 2:
        raise UserError(f"{path} has {start} row: too few to hold some out for validation")


def _kept(stretch: Stretch, kept: np.ndarray) -> Iterator[pa.Table]:
    start = 0
    for table in stretch.tables():
        yield table.filter(pa.array(kept[start : start + len(table)]))
        start += len(table)


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
