"""Where texts come from: the sample, a folder in GLUE's own layout or in the Hugging Face schema, the hub, own data."""

import contextlib
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from components.artifacts.code import PROJECT, sources_of
from components.artifacts.folders import combined_digest, file_digest
from components.artifacts.splits import PLACES, SUFFIXES, find_split, split_patterns
from components.errors import UserError
from components.storage import hub
from components.storage.transfer import local
from components.tasks.sample import generate, named
from components.tasks.table import UNLABELLED, Task, find_task
from components.tokenize.files import ROWS_AT_ONCE, check_columns, column_names, read_columns, unquoted_rows
from components.tokenize.own import OWN_SPLITS, read_own
from components.tokenize.rows import LABEL, Source, Stretch, Stretches, checked, number_of, table_of, tables_of

HUB_REPOSITORY = "nyu-mll/glue"
GENERATOR = "components.tasks.sample"


class NothingFoundError(UserError):
    """A folder has no file of any of the task's splits."""


def read_source(
    name: str,
    source: str,
    text_columns: Sequence[str] = (),
    label_column: str = "",
    skip_malformed_rows: bool = False,
    num_sample_rows: int = 0,
    seed: int = 0,
) -> Source:
    """Find the task's splits in `source`, whichever form it has. What is in an S3 store is fetched, once.

    Raises:
        UserError: unknown task, nothing found; what is wrong inside shows when a split is read.
    """
    path = _fetched(source, None if text_columns else find_task(name)) if is_of_hub(source) else local(source)
    if text_columns and is_of_hub(source) and not path.is_dir():
        raise NothingFoundError(_advice(name, source))
    if text_columns:
        return read_own(name, path, tuple(text_columns), label_column)
    found = Source(find_task(name))
    if source == "sample":
        raw: dict[str, Stretches] = _generate(found, num_sample_rows, seed)
    elif path.is_dir() or is_of_hub(source):
        try:
            raw = _read_folder(found, path, skip_malformed_rows)
        except NothingFoundError as error:
            raise NothingFoundError(_advice(name, source)) if is_of_hub(source) else error from None
    elif path.is_file():
        raise UserError(f"{path} is a file: to use it as your own data give --text-columns and --label-column")
    else:
        raise UserError(f"no source '{source}': give a folder, a file, 'hub' or 'sample'")
    found.splits = {split: partial(checked, found, split, stretches) for split, stretches in raw.items()}
    for split, lender in found.task.borrowed.items():
        with contextlib.suppress(NothingFoundError):  # most copies of MNLI come without the diagnostic set
            lent = read_source(lender, source, text_columns, label_column, skip_malformed_rows, num_sample_rows, seed)
            found.splits[split] = lent.splits["test"]
            found.digests |= lent.digests
    return found


def _generate(found: Source, num_rows: int, seed: int) -> dict[str, Stretches]:
    task = found.task
    rows = generate(task, num_rows, seed)
    found.task = named(task, seed)
    code = {path.relative_to(PROJECT).as_posix(): file_digest(path) for path in sources_of(GENERATOR)}
    found.generator = {
        "by": found.task.generated,
        "code": combined_digest(code),
        "task": task.name,
        "num_rows": num_rows,
        "seed": seed,
    }
    stretches: dict[str, Stretches] = {split: partial(_generated, task, rows[split]) for split in rows}
    found.digests = {f"{task.name}/{split}": partial(_content_digest, stretches[split]) for split in rows}
    return stretches


def _generated(task: Task, rows: list[tuple[tuple[str, ...], float]]) -> Iterator[Stretch]:
    yield Stretch(len(rows), lambda: [table_of(task, *zip(*rows, strict=True))])


def _content_digest(stretches: Stretches) -> str:
    """sha256 of the rows, in Arrow's stream format."""
    digest = hashlib.sha256()
    for table in tables_of(stretches()):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        digest.update(sink.getvalue())
    return digest.hexdigest()


# --- GLUE, as files ---


def _read_folder(found: Source, folder: Path, skip_malformed_rows: bool) -> dict[str, Stretches]:
    task = found.task
    for base in (folder / task.name, folder / task.folder, *(folder / place for place in PLACES)):
        official = {split: [base / file] for split, file in task.files.items() if (base / file).is_file()}
        files = official or {split: paths for split in task.files if (paths := find_split(base, split))}
        if files:
            found.places = {split: str(paths[0]) for split, paths in files.items() if len(paths) == 1}
            found.digests = {
                path.relative_to(folder).as_posix(): partial(file_digest, path) for paths in files.values() for path in paths
            }
            if official:
                return {
                    split: partial(_read_official, found, split, path, skip_malformed_rows) for split, (path,) in files.items()
                }
            return {split: partial(_read_parts, task, split, paths) for split, paths in files.items()}
    raise NothingFoundError(
        f"{folder} has no '{task.name}': expected {task.folder}/{next(iter(task.files.values()))} (official layout) "
        f"or {task.name}/{next(iter(task.files))}.parquet or .csv (Hugging Face schema)"
    )


def _read_official(found: Source, split: str, path: Path, skip_malformed_rows: bool) -> Iterator[Stretch]:
    """One of GLUE's own TSV files: with a header line, but for CoLA's labelled ones."""
    task = found.task
    text_names = task.official_text or task.text_columns
    labelled = not split.startswith("test")
    rows = unquoted_rows(path, task.header if labelled else ())
    header = next(rows, (0, []))[1]
    wanted = [*text_names, task.official_label] if labelled else list(text_names)
    check_columns(path, wanted, header)
    positions = [header.index(name) for name in wanted]
    known: dict[str, float] = {} if labelled else {"": UNLABELLED}

    def tables(part: list[tuple[int, list[str]]]) -> Iterator[pa.Table]:
        texts, labels = [], []
        for line, row in part:
            if len(row) != len(header):
                mend = "mend the line or pass --skip-malformed-rows"
                raise UserError(f"{path}:{line}: {len(row)} fields instead of {len(header)}: {mend}")
            texts.append(tuple(row[position] for position in positions[: len(text_names)]))
            label = row[positions[-1]] if labelled else ""
            if label not in known:
                known[label] = number_of(task, label, f"{path}:{line}")
            labels.append(known[label])
        yield table_of(task, texts, labels)

    while part := list(itertools.islice(rows, ROWS_AT_ONCE)):
        whole = [(line, row) for line, row in part if len(row) == len(header)] if skip_malformed_rows else part
        found.num_skipped += len(part) - len(whole)
        yield Stretch(len(whole), partial(tables, whole))


def _read_parts(task: Task, split: str, paths: Sequence[Path]) -> Iterator[Stretch]:
    """Parquet or CSV in the Hugging Face schema; a test split may be without labels."""
    has_labels = not split.startswith("test") or LABEL in column_names(paths[0])
    columns = [*task.text_columns, LABEL] if has_labels else list(task.text_columns)
    return itertools.chain.from_iterable(read_columns(path, columns) for path in paths)


# --- the hub ---


def is_of_hub(source: str) -> bool:
    return source == "hub" or source.startswith(hub.SCHEME)


def pinned(source: str) -> str:
    """A source of the hub as hub:OWNER/NAME@COMMIT; any other as it is.

    Raises:
        UserError: the hub does not give it.  TryAgainError: the hub is away.
    """
    if not is_of_hub(source):
        return source
    return hub.SCHEME + hub.pinned(source.removeprefix("hub").removeprefix(":") or HUB_REPOSITORY, "dataset")


def _fetched(source: str, task: Task | None) -> Path:
    """The files of a source of the hub, as far as the task's splits may be in them; without a task, those of own data."""
    places = [*PLACES, *(f"{name}/" for name in (task.name, task.folder) if name)] if task else PLACES
    wanted = [
        f"{place}{pattern}"
        for place in places
        for split in (task.files if task else OWN_SPLITS)
        for suffix in SUFFIXES
        for pattern in split_patterns(split, suffix)
    ]
    official = [f"{place}{file}" for place in places for file in (task.files.values() if task else ())]
    return hub.folder_of(pinned(source).removeprefix(hub.SCHEME), "dataset", (*wanted, *official))


def _advice(task: str, source: str) -> str:
    """What to do where the reader finds nothing in a source of the hub."""
    name = pinned(source).removeprefix(hub.SCHEME)
    there = hub.names_in(name, "dataset")
    shown = ", ".join(there[:5]) + (", ..." if len(there) > 5 else "")
    forms = f"{task}/train.parquet, data/train-00000-of-00001.parquet, train.csv or the like"
    converted = f"{hub.SCHEME}{name.partition('@')[0]}@refs/convert/parquet"
    mend = f"try the hub's Parquet copy, --source {converted}"
    return f"{source} has no files of '{task}' ({forms}), but {shown or 'nothing'}: {mend}"
