"""The user's own data: a file, of which some texts are held out, or a folder with files named train and validation (and test).

What is held out depends on the texts themselves: a row stays on its side when others are added, removed or moved, and rows with
the same texts are on the same side, whatever their labels.
"""

import functools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.artifacts.folders import file_digest
from components.artifacts.splits import PLACES, SUFFIXES, find_split
from components.errors import UserError
from components.tasks.table import Task
from components.tokenize.digest import text_digests
from components.tokenize.files import read_columns
from components.tokenize.rows import LABEL, Source, Stretch, Stretches, as_float, checked, tables_of

OWN_SPLITS = ("train", "validation", "test")
MOST_LABELS = 1000
HELD_OUT = 10
"""One text of so many, about, is held out where there is no validation split."""
MOST = np.uint32(2**32 - 1)

Masks = list[tuple[np.ndarray, int]]
"""Of each stretch: which of its rows are held out, eight to a byte, and how many rows it has."""


def read_own(name: str, path: Path, text_columns: tuple[str, ...], label_column: str) -> Source:
    """A file, of which some texts are held out, or a folder with files named train and validation (and test).

    Without a validation file about a tenth of the texts is held out, and of each label one at least (see `_held_out`).

    Raises:
        UserError: no such data. None can be held out: that shows when a split is read.
    """
    if path.is_dir():
        base = next((path / place for place in PLACES if find_split(path / place, "train")), path)
        files = {split: paths for split in OWN_SPLITS if (paths := find_split(base, split))}
        if "train" not in files:
            raise UserError(f"{path} has no train.parquet, train.csv or train.tsv")
    elif path.is_file() and path.suffix in SUFFIXES:
        files = {"train": [path]}
    else:
        raise UserError(f"no file '{path}': give a {', '.join(SUFFIXES)} file, or a folder with a train file")

    labels = tables_of(_stretches(files["train"], (label_column,)))
    found = Source(_own_task(name, text_columns, labels, path))
    found.digests = {
        part.relative_to(path if path.is_dir() else path.parent).as_posix(): partial(file_digest, part)
        for parts in files.values()
        for part in parts
    }
    found.places = {split: str(parts[0]) for split, parts in files.items() if len(parts) == 1}
    columns = (*text_columns, label_column)
    read: dict[str, Stretches] = {
        split: partial(checked, found, split, partial(_stretches, parts, columns)) for split, parts in files.items()
    }
    if "validation" not in read:
        whole = read["train"]
        masks = functools.cache(partial(_held_out, whole, found.task, path))  # found at the first row that is asked for
        read |= {split: partial(_part, whole, split, masks) for split in ("train", "validation")}
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


def _held_out(whole: Stretches, task: Task, path: Path) -> Masks:
    """The rows to hold out, by one pass over them: those whose texts have a digest in the lowest tenth of all digests.

    Of each label (of a regression: of all rows) the texts with the lowest digest are held out too, and those with the highest
    are trained on, which comes first where they are the same or are another label's lowest. So every label is in training, and
    one with two texts of its own is in both. When others are added, this can move rows of labels with up to some forty texts.

    How many of a label are held out is left to chance: of 1,000 texts 80 to 120. To fix it would move rows as others are added.
    """
    lowest, highest = np.full(task.num_outputs, MOST), np.zeros(task.num_outputs, np.uint32)
    ranks = []
    for stretch in whole():
        of_stretch = [np.zeros(0, np.uint32)]
        for table in stretch.tables():
            rank = (text_digests(table, task.text_columns, "held out").view(np.uint64) >> np.uint64(32)).astype(np.uint32)
            labels = np.zeros(len(table), np.int64) if task.is_regression else table[LABEL].to_numpy()
            np.minimum.at(lowest, labels, rank)
            np.maximum.at(highest, labels, rank)
            of_stretch.append(rank)
        ranks.append(np.concatenate(of_stretch))
    masks: Masks = []
    for number, rank in enumerate(ranks):
        chosen = ((rank < MOST // HELD_OUT) | np.isin(rank, lowest)) & ~np.isin(rank, highest)
        masks.append((np.packbits(chosen), len(chosen)))
        ranks[number] = rank[:0]  # four bytes a row, no longer needed
    if not any(packed.any() for packed, _ in masks):
        rows = sum(count for _, count in masks)
        found = f"{rows} row{'s' if rows > 1 else ''} and no label with two different texts"
        raise UserError(f"{path} has {found}: too few to hold some out for validation")
    return masks


def _part(whole: Stretches, split: str, masks: Callable[[], Masks]) -> Iterator[Stretch]:
    """What is left of the training rows, or what is held out of them."""
    for (packed, count), stretch in zip(masks(), whole(), strict=True):
        held_out = np.unpackbits(packed, count=count).view(bool)
        kept = held_out if split == "validation" else ~held_out
        yield Stretch(int(kept.sum()), partial(_kept, stretch, kept))


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
