"""Where a split lies in a folder: one file, or several."""

from pathlib import Path

SUFFIXES = (".parquet", ".csv", ".tsv")


def find_split(folder: Path, split: str) -> list[Path]:
    """`train.parquet`, or the hub's own `train-00000-of-00002.parquet` and so on; nothing where there is no such split."""
    for suffix in SUFFIXES:
        if paths := sorted([*folder.glob(f"{split}{suffix}"), *folder.glob(f"{split}-*-of-*{suffix}")]):
            return paths
    return []
