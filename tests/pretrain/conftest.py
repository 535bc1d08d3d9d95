"""A corpus of generated sentences."""

from pathlib import Path

import pytest

from components.corpus.stage import corpus
from components.tasks.sample import generate
from components.tasks.table import TASKS


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of 300 sentences."""
    path = tmp_path_factory.mktemp("text") / "train.txt"
    path.write_text("".join(f"{texts[0]}\n" for texts, _ in generate(TASKS["sst2"], 300, 0)["train"]))
    return path


@pytest.fixture(scope="session")
def corpus_dir(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "c"
    corpus(source=str(source), vocabulary_size=200, output_dir=folder)
    return folder
