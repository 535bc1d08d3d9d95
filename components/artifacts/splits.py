"""Where a split lies in a folder: one file, or several."""

from pathlib import Path

SUFFIXES = (".parquet", ".csv", ".tsv")
PLACES = ("", "data/", "default/")
"""Where in a folder the files of one task's splits are: at its top, or where the hub's data sets have them."""
FORMS = ("{split}{suffix}", "{split}-*-of-*{suffix}", "{split}/[0-9]*{suffix}")
"""One file; the hub's own `train-00000-of-00002.parquet` and so on; what it converts itself: `train/0000.parquet` and so on."""


def split_patterns(split: str, suffix: str) -> list[str]:
    """What a split's files may be called, relative to the folder that they are in."""
    return [form.format(split=split, suffix=suffix) for form in FORMS]


def find_split(folder: Path, split: str) -> list[Path]:
    """All files of a split, in order, in the first format in which there are some; nothing where there is no such split."""
    for suffix in SUFFIXES:
        if paths := sorted(path for pattern in split_patterns(split, suffix) for path in folder.glob(pattern)):
            return paths
    return []
