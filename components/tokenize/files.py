"""One file of texts: GLUE's unquoted TSV, CSV and TSV with quotes, Parquet. What is wrong is named with its file and line."""

import csv
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import UserError
from components.tokenize.rows import Stretch

ROWS_AT_ONCE = 10_000


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet, CSV or TSV file."""
    if path.suffix == ".parquet":
        return list(_open_parquet(path).schema_arrow.names)
    return next(_quoted_rows(path), (0, []))[1]


def read_columns(path: Path, columns: Sequence[str]) -> Iterator[Stretch]:
    """`columns` of a Parquet, CSV or TSV file, in this order, ROWS_AT_ONCE rows a table; from CSV and TSV all are strings.

    Of Parquet, a row group that nobody asks for is not read.

    Raises:
        UserError: a column that is not there, a row with the wrong number of fields, bytes that are no such file.
    """
    names = column_names(path)
    check_columns(path, columns, names)
    if path.suffix == ".parquet":
        file = _open_parquet(path)
        for group in range(file.num_row_groups):
            yield Stretch(file.metadata.row_group(group).num_rows, partial(_row_group, path, file, group, columns))
        return
    rows = _quoted_rows(path)
    next(rows)
    while part := list(itertools.islice(rows, ROWS_AT_ONCE)):
        yield Stretch(len(part), partial(_fields, path, part, names, columns))


def _row_group(path: Path, file: pq.ParquetFile, group: int, columns: Sequence[str]) -> Iterator[pa.Table]:
    try:
        for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=list(columns)):
            yield pa.table(batch).select(list(columns))
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: damaged ({str(error).splitlines()[0]})") from None


def _fields(path: Path, rows: list[tuple[int, list[str]]], names: Sequence[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    for line, row in rows:
        if len(row) != len(names):
            raise UserError(f"{path}:{line}: {len(row)} fields instead of {len(names)}: mend the line")
    positions = [names.index(name) for name in columns]
    yield pa.table([pa.array([row[at] for _, row in rows], pa.string()) for at in positions], names=list(columns))


def unquoted_rows(path: Path, header: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of one of GLUE's own TSV files, where a quote is text; first `header`, if the file has none."""
    if header:
        yield 0, list(header)
    with path.open(encoding="utf-8", newline="\n") as file:
        try:
            for line, text in enumerate(file, 1):
                yield line, text.rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None


def check_columns(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    """UserError where a wanted column is missing."""
    if missing := [name for name in wanted if name not in there]:
        raise UserError(f"{path}: no column {', '.join(missing)}; it has {', '.join(there) or 'none'}")


def _quoted_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a CSV or TSV with quotes, its header first; empty lines left out."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}:{reader.line_num + 1}: {error}") from None


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from None
