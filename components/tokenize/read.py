"""Where texts come from: every source ends as {split: table of the text columns, `label` and `idx`}, checked.

Labels are int64 class numbers or float32 scores, -1 where a split has none (the Hugging Face convention).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pyarrow as pa

from components.artifacts import file_digest
from components.errors import UserError
from components.tasks import UNLABELLED, Task, find_task
from components.tokenize.files import SUFFIXES, check_columns, column_names, find_split, read_columns, unquoted_rows
from components.tokenize.sample import generate

HUB_REPOSITORY = "nyu-mll/glue"
HELD_OUT = 0.1  # of own data that has no validation split
LABEL = "label"

Texts = dict[str, pa.Table]


@dataclass
class Source:
    """The checked splits of a task, and what they were read from."""

    task: Task
    splits: Texts = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    """File -> sha256."""
    places: dict[str, str] = field(default_factory=dict)
    """Split -> how to name it to the user."""
    num_skipped: int = 0
    """Malformed rows left out, on request."""


def read_source(
    name: str,
    source: str,
    text_columns: Sequence[str],
    label_column: str,
    skip_malformed_rows: bool,
    num_sample_rows: int,
    seed: int,
) -> Source:
    """Find the task's splits in `source`, whichever form it has, and check every row.

    Raises:
        UserError: unknown task, nothing found, wrong columns or fields, a label out of range, an empty split. It names the
            file and the line.
    """
    path = Path(source)
    if text_columns:
        return _read_own(name, path, tuple(text_columns), label_column)
    found = Source(find_task(name))
    if source == "sample":
        rows = generate(found.task, num_sample_rows, seed)
        raw = {split: _table(found.task, *zip(*rows[split], strict=True)) for split in rows}
    elif source == "hub" or source.startswith("hub:"):
        raw = _read_hub(found, source.removeprefix("hub").removeprefix(":") or HUB_REPOSITORY)
    elif path.is_dir():
        raw = _read_folder(found, path, skip_malformed_rows)
    elif path.is_file():
        raise UserError(f"{path} is a file: to use it as your own data give --text-columns and --label-column")
    else:
        raise UserError(f"no source '{source}': give a folder, a file, 'hub' or 'sample'")
    found.splits = {split: _check(found, split, table) for split, table in raw.items()}
    return found


# --- GLUE, as files ---


def _read_folder(found: Source, folder: Path, skip_malformed_rows: bool) -> Texts:
    task = found.task
    for base in (folder / task.name, folder / task.folder, folder):
        official = {split: [base / file] for split, file in task.files.items() if (base / file).is_file()}
        files = official or {split: paths for split in task.files if (paths := find_split(base, split))}
        if files:
            found.places = {split: str(paths[0]) for split, paths in files.items() if len(paths) == 1}
            found.inputs = {
                path.relative_to(folder).as_posix(): file_digest(path) for paths in files.values() for path in paths
            }
            if official:
                return {split: _read_official(found, split, path, skip_malformed_rows) for split, (path,) in files.items()}
            return {split: _read_parts(task, split, paths) for split, paths in files.items()}
    raise UserError(
        f"{folder} has no '{task.name}': expected {task.folder}/{next(iter(task.files.values()))} (official layout) "
        f"or {task.name}/{next(iter(task.files))}.parquet or .csv (Hugging Face schema)"
    )


def _read_official(found: Source, split: str, path: Path, skip_malformed_rows: bool) -> pa.Table:
    """One of GLUE's own TSV files: with a header line, but for CoLA's labelled ones."""
    task = found.task
    text_names = task.official_text or task.text_columns
    labelled = not split.startswith("test")
    rows = unquoted_rows(path, task.header if labelled else ())
    header = next(rows, (0, []))[1]
    wanted = [*text_names, task.official_label] if labelled else list(text_names)
    check_columns(path, wanted, header)
    positions = [header.index(name) for name in wanted]
    texts, labels = [], []
    for line, row in rows:
        if len(row) == len(header):
            texts.append(tuple(row[position] for position in positions[: len(text_names)]))
            labels.append(_number(task, row[positions[-1]], f"{path}:{line}") if labelled else UNLABELLED)
        elif skip_malformed_rows:
            found.num_skipped += 1
        else:
            mend = "mend the line or pass --skip-malformed-rows"
            raise UserError(f"{path}:{line}: {len(row)} fields instead of {len(header)}: {mend}")
    return _table(task, texts, labels)


def _read_parts(task: Task, split: str, paths: Sequence[Path]) -> pa.Table:
    """Parquet or CSV in the Hugging Face schema; a test split may be without labels."""
    has_labels = not split.startswith("test") or LABEL in column_names(paths[0])
    columns = [*task.text_columns, LABEL] if has_labels else list(task.text_columns)
    return pa.concat_tables([read_columns(path, columns) for path in paths])


# --- the hub ---


def _read_hub(found: Source, repository: str) -> Texts:
    import datasets  # seconds to import: only where it is used

    task = found.task
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(repository, task.name)
    except (OSError, ValueError, RuntimeError) as error:  # what the library raises when offline, or for an unknown name
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot load {task.name} from the hub ({repository}): {reason}; or give --source a folder") from None
    tables = {split: loaded[split].with_format("arrow")[:] for split in task.files if split in loaded}
    for split, table in tables.items():
        found.inputs[f"{repository}/{task.name}/{split}"] = _content_digest(table)
    return {split: table.select([*task.text_columns, LABEL]) for split, table in tables.items()}


def _content_digest(table: pa.Table) -> str:
    """sha256 of the rows, in Arrow's stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


# --- own data ---


def _read_own(name: str, path: Path, text_columns: tuple[str, ...], label_column: str) -> Source:
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
    names = [*text_columns, LABEL]
    raw = {
        split: pa.concat_tables([read_columns(part, (*text_columns, label_column)).rename_columns(names) for part in parts])
        for split, parts in files.items()
    }
    task = _own_task(name, text_columns, raw["train"][LABEL], path)
    found = Source(task, inputs={part.name: file_digest(part) for parts in files.values() for part in parts})
    found.places = {split: str(parts[0]) for split, parts in files.items() if len(parts) == 1}
    found.splits = {split: _check(found, split, table) for split, table in raw.items()}
    if "validation" not in found.splits:
        train = found.splits.pop("train")
        order = list(range(len(train)))
        Random(0).shuffle(order)
        cut = max(1, round(len(train) * HELD_OUT))
        if len(train) < 2:
            raise UserError(f"{path} has {len(train)} row: too few to hold some out for validation")
        found.splits = {"train": train.take(sorted(order[cut:])), "validation": train.take(sorted(order[:cut])), **found.splits}
    return found


def _own_task(name: str, text_columns: tuple[str, ...], labels: pa.ChunkedArray, path: Path) -> Task:
    """A regression if any label has a fraction, else a classification over the labels that occur, in their order."""
    values = {str(value) for value in labels.to_pylist() if value is not None}
    numbers = [number for value in values if (number := _float(value)) is not None]
    if len(numbers) == len(values) and any(not number.is_integer() for number in numbers):
        return Task(name, text_columns, (), ("pearson", "spearman"))
    if len(values) < 2:
        raise UserError(f"{path}: the label column has {len(values)} different value(s): a classification needs two or more")
    names = sorted(values, key=lambda value: (_float(value) is None, _float(value) or 0.0, value))
    if len(names) > 1000:
        raise UserError(f"{path}: the label column has {len(names)} different values: is it the label?")
    return Task(name, text_columns, tuple(names), ("accuracy", "f1") if len(names) == 2 else ("accuracy", "macro_f1"))


def _float(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


# --- what every source ends as ---


def _table(task: Task, texts: Sequence[Sequence[str]], labels: Sequence[float]) -> pa.Table:
    columns = zip(*texts, strict=True) if texts else ([] for _ in task.text_columns)
    return pa.table({**dict(zip(task.text_columns, columns, strict=True)), "label": labels})


def _check(found: Source, split: str, table: pa.Table) -> pa.Table:
    """The table with labels as numbers and `idx`, the row number; UserError for the first row that does not fit."""
    task = found.task
    where = found.places.get(split, f"the {split} split of '{task.name}'")
    if len(table) == 0:
        raise UserError(f"{where}: no rows, the {split} split is empty")
    for column in task.text_columns:
        if not pa.types.is_string(table[column].type) and not pa.types.is_large_string(table[column].type):
            raise UserError(f"{where}: column {column} is {table[column].type}, not text")
        if table[column].null_count:
            row = table[column].to_pylist().index(None)
            raise UserError(f"{where}, row {row}: column {column} is empty (null)")
    if "label" in table.column_names:
        raw = table["label"].to_pylist()
        unlabelled = split.startswith("test")
        labels = [
            UNLABELLED if unlabelled and _is_unlabelled(value) else _number(task, value, f"{where}, row {row}")
            for row, value in enumerate(raw)
        ]
    else:
        labels = [UNLABELLED] * len(table)
    kind = pa.float32() if task.is_regression else pa.int64()
    columns = {name: table[name].cast(pa.string()) for name in task.text_columns}
    return pa.table({**columns, "label": pa.array(labels, kind), "idx": pa.array(range(len(table)), pa.int32())})


def _is_unlabelled(value: object) -> bool:
    return value is None or str(value) in ("", "-1", "-1.0")


def _number(task: Task, value: object, where: str) -> float:
    """A label as its number: a class by name or number, or a score within the task's range."""
    number = _float(str(value))
    if task.is_regression:
        low, high = task.label_range or (-math.inf, math.inf)
        if number is None or not math.isfinite(number) or not low <= number <= high:
            raise UserError(f"{where}: label '{value}' is no number from {low:g} to {high:g}")
        return number
    if str(value) in task.label_names:
        return task.label_names.index(str(value))
    named_by_numbers = any(_float(name) is not None for name in task.label_names)
    if number is None or named_by_numbers or number not in range(len(task.label_names)):
        raise UserError(f"{where}: label '{value}' is none of {', '.join(task.label_names)}")
    return int(number)
