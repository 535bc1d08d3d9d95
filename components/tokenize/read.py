"""Where texts come from: the sample, a folder in GLUE's own layout or in the Hugging Face schema, the hub, own data."""

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from components.artifacts.code import PROJECT, sources_of
from components.artifacts.folders import combined_digest, file_digest
from components.artifacts.splits import find_split
from components.errors import UserError
from components.storage.transfer import local
from components.tasks.sample import generate, named
from components.tasks.table import UNLABELLED, Task, find_task
from components.tokenize.files import ROWS_AT_ONCE, check_columns, column_names, read_columns, unquoted_rows
from components.tokenize.own import read_own
from components.tokenize.rows import LABEL, Source, Stretch, Stretches, checked, number_of, table_of, tables_of

HUB_REPOSITORY = "nyu-mll/glue"
GENERATOR = "components.tasks.sample"


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
    path = local(source)
    if text_columns:
        return read_own(name, path, tuple(text_columns), label_column)
    found = Source(find_task(name))
    if source == "sample":
        raw: dict[str, Stretches] = _generate(found, num_sample_rows, seed)
    elif source == "hub" or source.startswith("hub:"):
        raw = _read_hub(found, source.removeprefix("hub").removeprefix(":") or HUB_REPOSITORY)
    elif path.is_dir():
        raw = _read_folder(found, path, skip_malformed_rows)
    elif path.is_file():
        raise UserError(f"{path} is a file: to use it as your own data give --text-columns and --label-column")
    else:
        raise UserError(f"no source '{source}': give a folder, a file, 'hub' or 'sample'")
    found.splits = {split: partial(checked, found, split, stretches) for split, stretches in raw.items()}
    for split, lender in found.task.borrowed.items():
        with contextlib.suppress(UserError):  # most copies of MNLI come without the diagnostic set
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


# --- GLUE, as files ---


def _read_folder(found: Source, folder: Path, skip_malformed_rows: bool) -> dict[str, Stretches]:
    task = found.task
    for base in (folder / task.name, folder / task.folder, folder):
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
    raise UserError(
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


def pinned(source: str) -> str:
    """A source of the hub as hub:OWNER/NAME@COMMIT, of the newest commit; any other as it is.

    Raises:
        UserError: the hub does not give it.
    """
    if (source != "hub" and not source.startswith("hub:")) or "@" in source:
        return source
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # without a network; no OSError

    repository = source.removeprefix("hub").removeprefix(":") or HUB_REPOSITORY
    try:
        return f"hub:{repository}@{HfApi().dataset_info(repository).sha}"
    except (OSError, ValueError, HTTPError) as error:
        if os.environ.get("HF_HUB_OFFLINE"):  # datasets has a cache of its own
            return source
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot find {repository} on the hub: {reason}; or give --source a folder") from None


def _read_hub(found: Source, repository: str) -> dict[str, Stretches]:
    import datasets  # seconds to import: only where it is used

    task = found.task
    datasets.disable_progress_bars()
    try:
        name, _, commit = repository.partition("@")
        loaded = datasets.load_dataset(name, task.name, revision=commit or None)
    except (OSError, ValueError, RuntimeError) as error:  # what the library raises when offline, or for an unknown name
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot load {task.name} from the hub ({repository}): {reason}; or give --source a folder") from None

    columns = [*task.text_columns, LABEL]

    def rows(split: str, start: int) -> Iterator[pa.Table]:
        yield loaded[split].with_format("arrow")[start : start + ROWS_AT_ONCE].select(columns)

    def stretches(split: str) -> Iterator[Stretch]:
        for start in range(0, len(loaded[split]), ROWS_AT_ONCE):
            yield Stretch(min(ROWS_AT_ONCE, len(loaded[split]) - start), partial(rows, split, start))

    there = [split for split in task.files if split in loaded]
    for split in there:
        found.digests[f"{repository}/{task.name}/{split}"] = partial(_content_digest, partial(stretches, split))
    return {split: partial(stretches, split) for split in there}


def _content_digest(stretches: Stretches) -> str:
    """sha256 of the rows, in Arrow's stream format."""
    digest = hashlib.sha256()
    for table in tables_of(stretches()):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        digest.update(sink.getvalue())
    return digest.hexdigest()
