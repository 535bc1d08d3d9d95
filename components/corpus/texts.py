"""Where the text to pre-train on comes from: text files, Parquet, CSV or TSV; here, in an S3 store, or on the hub."""

import codecs
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from components.artifacts.folders import file_digest
from components.artifacts.provenance import uri_of
from components.artifacts.splits import PLACES, find_split, split_patterns
from components.errors import UserError
from components.storage import hub
from components.storage.transfer import local
from components.tokenize.files import check_columns, column_names, read_columns

TEXT = ".txt"
TABLES = (".parquet", ".csv", ".tsv")
TEXTS_AT_ONCE, CHARACTERS_AT_ONCE = 1000, 2**20
LONGEST_LINE = 2**18
"""Bytes: a longer line is read in pieces of so many, each a text of its own."""


@dataclass(frozen=True)
class Texts:
    """Iterates over all texts, in their order, some at a time; nothing is read whole.

    files: name -> where it is.  uri: where they lie, all of them.  A line of a text file is a text, and so is a row of a table;
    what is empty is none.
    """

    files: Mapping[str, Path]
    text_column: str
    uri: str

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """File -> sha256."""
        return {name: file_digest(path) for name, path in self.files.items()}

    def __iter__(self) -> Iterator[list[str]]:
        """Raises UserError for a file that is not what it is called; it names the file."""
        return together(text for path in self.files.values() for text in self._of(path) if text and not text.isspace())

    def _of(self, path: Path) -> Iterator[str]:
        if path.suffix not in TABLES:
            yield from lines_of(path)
            return
        for stretch in read_columns(path, [self.text_column]):
            for table in stretch.tables():
                yield from (str(text) for text in table[self.text_column].to_pylist() if text is not None)


def together(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of at most TEXTS_AT_ONCE texts, and of about CHARACTERS_AT_ONCE characters."""
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if len(held) == TEXTS_AT_ONCE or size >= CHARACTERS_AT_ONCE:
            yield held
            held, size = [], 0
    if held:
        yield held


def lines_of(path: Path) -> Iterator[str]:
    """UserError where a line is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        number = 1
        try:
            while piece := file.readline(LONGEST_LINE):
                yield decoder.decode(piece, final=piece.endswith(b"\n"))
                number += piece.endswith(b"\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: not UTF-8 ({error.reason}): mend the line") from None


def find_texts(source: str, text_column: str) -> Texts:
    """The files of `source`. Of a folder with splits it is the training split.

    Raises:
        UserError: there is no text, or no such column.  TryAgainError: store or hub is away.
    """
    inside = ""
    if is_of_hub(source):
        path, inside, uri = _fetched(source)
    else:
        path = local(source)
        uri = uri_of(path)
    if path.is_dir() or is_of_hub(source):
        found = {f"{inside}{name}": file for name, file in _in_folder(path).items()}
    elif path.is_file():
        found = {path.name: path}
    else:
        raise UserError(f"no source '{source}': give a text file, a Parquet file, a folder of them or hub:OWNER/NAME")
    if not found:
        raise UserError(f"{source} has no text: expected train.txt, train.parquet, data/train-00000-of-00001.parquet or *.txt")
    for file in found.values():
        if file.suffix in TABLES:
            check_columns(file, [text_column], column_names(file))
    return Texts(found, text_column, uri)


def _in_folder(folder: Path) -> dict[str, Path]:
    for place in PLACES:
        base = folder / place
        paths = sorted(path for pattern in split_patterns("train", TEXT) for path in base.glob(pattern))
        if paths := paths or find_split(base, "train"):
            return {path.relative_to(folder).as_posix(): path for path in paths}
    return {path.name: path for path in sorted(folder.glob(f"*{TEXT}"))}


# --- the hub ---


def is_of_hub(source: str) -> bool:
    return source.startswith(hub.SCHEME)


def pinned(source: str) -> str:
    """hub:OWNER/NAME/FOLDER@REVISION with its commit as revision; any other source as it is.

    Raises:
        UserError: the hub does not give it.  TryAgainError: the hub is away.
    """
    if not is_of_hub(source):
        return source
    repository, folder, revision = _parts(source)
    commit = hub.pinned(f"{repository}@{revision}" if revision else repository, "dataset").partition("@")[2]
    return f"{hub.SCHEME}{repository}{folder}@{commit}"


def _parts(source: str) -> tuple[str, str, str]:
    """(OWNER/NAME, /FOLDER or '', revision or '')"""
    name, _, revision = source.removeprefix(hub.SCHEME).partition("@")
    owner, _, rest = name.partition("/")
    repository, slash, folder = rest.partition("/")
    return f"{owner}/{repository}", slash + folder, revision


def _fetched(source: str) -> tuple[Path, str, str]:
    """The folder, what it is called in its repository ('' for all of that), and the repository's URI."""
    repository, folder, commit = _parts(pinned(source))
    inside = f"{folder.strip('/')}/" if folder else ""
    wanted = [
        f"{inside}{place}{pattern}"
        for place in PLACES
        for suffix in (TEXT, *TABLES)
        for pattern in split_patterns("train", suffix)
    ]
    name = f"{repository}@{commit}"
    return hub.folder_of(name, "dataset", tuple(wanted)) / inside, inside, f"{hub.SCHEME}{name}"
