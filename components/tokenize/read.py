"""Where texts come from: every source ends as {split: table of the text columns, `label` and `idx`}, checked.

Labels are int64 class numbers or float32 scores, -1 where a split has none (the Hugging Face convention).
"""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import file_digest
from components.errors import UserError
from components.tasks import UNLABELLED, Task, find_task
from components.tokenize.sample import generate

HUB_REPOSITORY = "nyu-mll/glue"
SUFFIXES = (".parquet", ".csv", ".tsv")
HELD_OUT = 0.1  # of own data that has no validation split
CONVENTIONAL_LABELS = ("label", "labels")

Texts = dict[str, pa.Table]


@dataclass
class Source:
    """The checked splits of a task, and what they were read from."""

    task: Task
    splits: Texts = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    """File -> sha256."""
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
        raw = {split: _table(found.task, split, *zip(*rows[split], strict=True)) for split in rows}
    elif source == "hub" or source.startswith("hub:"):
        raw = _read_hub(found, source.removeprefix("hub").removeprefix(":") or HUB_REPOSITORY)
    elif path.is_dir():
        raw = _read_folder(found, path, skip_malformed_rows)
    elif path.is_file():
        raise UserError(f"{path} is a file: to use it as your own data give --text-columns and --label-column")
    else:
        raise UserError(f"no source '{source}': give a folder, a file, 'hub' or 'sample'")
    found.splits = {split: _check(found.task, split, table) for split, table in raw.items()}
    return found


# --- GLUE, as files ---


def _read_folder(found: Source, folder: Path, skip_malformed_rows: bool) -> Texts:
    task = found.task
    for base in (folder / task.name, folder / task.folder, folder):
        official = {split: base / file for split, file in task.files.items() if (base / file).is_file()}
        if official:
            tables = {split: _read_official(found, split, path, skip_malformed_rows) for split, path in official.items()}
        else:
            files = {split: _split_files(base, split) for split in task.files}
            tables = {split: _read_tables(task, split, paths) for split, paths in files.items() if paths}
            official = {path.name: path for paths in files.values() for path in paths}
        if tables:
            found.inputs = {path.relative_to(folder).as_posix(): file_digest(path) for path in official.values()}
            return tables
    raise UserError(
        f"{folder} has no '{task.name}': expected {task.folder}/{next(iter(task.files.values()))} (official layout) "
        f"or {task.name}/{next(iter(task.files))}.parquet or .csv (Hugging Face schema)"
    )


def _split_files(folder: Path, split: str) -> list[Path]:
    """`train.parquet`, or the hub's own `train-00000-of-00002.parquet` and so on."""
    for suffix in SUFFIXES:
        if paths := sorted([*folder.glob(f"{split}{suffix}"), *folder.glob(f"{split}-*-of-*{suffix}")]):
            return paths
    return []


def _read_official(found: Source, split: str, path: Path, skip_malformed_rows: bool) -> pa.Table:
    """One of GLUE's own TSV files: tab-separated, unquoted, with a header line but for CoLA's labelled files."""
    task = found.task
    text_names = task.official_text or task.text_columns
    labelled = not split.startswith("test")
    texts, labels = [], []
    rows = _fields(path, task.header if labelled else ())
    header = next(rows, (0, []))[1]
    wanted = [*text_names, task.official_label] if labelled else list(text_names)
    if missing := [name for name in wanted if name not in header]:
        raise UserError(f"{path}: no column {', '.join(missing)}; it has {', '.join(header)}")
    positions = [header.index(name) for name in wanted]
    for line, row in rows:
        if len(row) != len(header) and not skip_malformed_rows:
            raise UserError(
                f"{path}:{line}: {len(row)} fields instead of {len(header)}: mend the line or pass --skip-malformed-rows"
            )
        if len(row) != len(header):
            found.num_skipped += 1
            continue
        texts.append(tuple(row[position] for position in positions[: len(text_names)]))
        labels.append(_number(task, row[positions[-1]], f"{path}:{line}") if labelled else UNLABELLED)
    return _table(task, split, texts, labels)


def _fields(path: Path, header: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of an unquoted TSV; `header` first where the file has none of its own."""
    if header:
        yield 0, list(header)
    with path.open(encoding="utf-8", newline="\n") as file:
        try:
            for line, text in enumerate(file, 1):
                yield line, text.rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None


def _read_tables(task: Task, split: str, paths: Sequence[Path]) -> pa.Table:
    """Parquet or CSV in the Hugging Face schema."""
    return pa.concat_tables([_read_table(path, (*task.text_columns, *_label_of(task, split, path)), task) for path in paths])


def _label_of(task: Task, split: str, path: Path) -> tuple[str, ...]:
    has_none = split.startswith("test") and task.label_column not in _column_names(path)
    return () if has_none else (task.label_column,)


def _column_names(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        return list(_open_parquet(path).schema_arrow.names)
    return next(iter(_csv_rows(path)), (0, []))[1]


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from None


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a quoted CSV or TSV, its header first."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        try:
            for row in reader:
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}:{reader.line_num + 1}: {error}") from None


def _read_table(path: Path, columns: Sequence[str], task: Task) -> pa.Table:
    """`columns` of one file, texts first, as {text columns of the task, label}. Values are as the file has them."""
    names = _column_names(path)
    if missing := [name for name in columns if name not in names]:
        raise UserError(f"{path}: no column {', '.join(missing)}; it has {', '.join(names)}")
    if path.suffix == ".parquet":
        table = _open_parquet(path).read(columns=list(columns))
        return table.select(list(columns)).rename_columns([*task.text_columns, "label"][: len(columns)])
    positions = [names.index(name) for name in columns]
    values: list[list[str]] = [[] for _ in columns]
    for line, row in _csv_rows(path):
        if len(row) != len(names):
            raise UserError(f"{path}:{line}: {len(row)} fields instead of {len(names)}: mend the line")
        for column, position in zip(values, positions, strict=True):
            column.append(row[position])
    return pa.table({name: column[1:] for name, column in zip([*task.text_columns, "label"], values, strict=False)})


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
    return {split: table.select([*task.text_columns, "label"]) for split, table in tables.items()}


def _content_digest(table: pa.Table) -> str:
    """sha256 of the rows, in Arrow's stream format."""
    digest = hashlib.sha256()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    digest.update(sink.getvalue())
    return digest.hexdigest()


# --- own data ---


def _read_own(name: str, path: Path, text_columns: tuple[str, ...], label_column: str) -> Source:
    """A file, of which a tenth is held out, or a folder with files named train and validation (and test)."""
    if not label_column:
        raise UserError("--text-columns goes with --label-column: name the column that holds the label")
    if len(text_columns) > 2:
        raise UserError(f"--text-columns names {len(text_columns)} columns: give one, or two for sentence pairs")
    if path.is_dir():
        files = {split: paths for split in ("train", "validation", "test") if (paths := _split_files(path, split))}
        if "train" not in files:
            raise UserError(f"{path} has no train.parquet, train.csv or train.tsv")
    elif path.is_file() and path.suffix in SUFFIXES:
        files = {"train": [path]}
    else:
        raise UserError(f"no file '{path}': give a {', '.join(SUFFIXES)} file, or a folder with a train file")
    bare = Task(name, text_columns, (), ())
    raw = {
        split: pa.concat_tables([_read_table(part, (*text_columns, label_column), bare) for part in parts])
        for split, parts in files.items()
    }
    task = _own_task(name, text_columns, raw["train"]["label"], path)
    found = Source(task, inputs={part.name: file_digest(part) for parts in files.values() for part in parts})
    found.splits = {split: _check(task, split, table) for split, table in raw.items()}
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


def _table(task: Task, split: str, texts: Sequence[Sequence[str]], labels: Sequence[float]) -> pa.Table:
    columns = zip(*texts, strict=True) if texts else ([] for _ in task.text_columns)
    return pa.table({**dict(zip(task.text_columns, columns, strict=True)), "label": labels})


def _check(task: Task, split: str, table: pa.Table) -> pa.Table:
    """The table with labels as numbers and `idx`, the row number; UserError for the first row that does not fit."""
    if len(table) == 0:
        raise UserError(f"the {split} split of '{task.name}' is empty")
    for column in task.text_columns:
        if not pa.types.is_string(table[column].type) and not pa.types.is_large_string(table[column].type):
            raise UserError(f"the {split} split of '{task.name}': column {column} is {table[column].type}, not text")
        if table[column].null_count:
            row = table[column].to_pylist().index(None)
            raise UserError(f"the {split} split of '{task.name}', row {row}: column {column} is empty (null)")
    if "label" in table.column_names:
        where = f"the {split} split of '{task.name}', row "
        raw = table["label"].to_pylist()
        unlabelled = split.startswith("test")
        labels = [
            UNLABELLED if unlabelled and _is_unlabelled(value) else _number(task, value, f"{where}{row}")
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
        low, high = task.label_range or (float("-inf"), float("inf"))
        if number is None or not low <= number <= high:  # also refuses NaN
            raise UserError(f"{where}: label '{value}' is no number from {low:g} to {high:g}")
        return number
    if str(value) in task.label_names:
        return task.label_names.index(str(value))
    named_by_numbers = any(_float(name) is not None for name in task.label_names)
    if number is None or named_by_numbers or number not in range(len(task.label_names)):
        raise UserError(f"{where}: label '{value}' is none of {', '.join(task.label_names)}")
    return int(number)
