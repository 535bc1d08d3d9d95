"""Text of the hub: tied to a commit, from a folder of the repository where one is named."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_stub import Hub, hub_stub, library_at

from components.corpus.texts import find_texts, pinned
from components.errors import UserError


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Hub]:
    with hub_stub() as stub, library_at(stub.url, tmp_path / "cache"):
        yield stub


def parquet(text: str) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": [text, ""]}), file)
    return file.getvalue()


def test_a_folder_of_a_repository_may_be_named(stub: Hub) -> None:
    files = {
        f"{size}/{split}-00000-of-00001.parquet": parquet(f"{size} {split}") for size in "ab" for split in ("train", "test")
    }
    commit = stub.add("dataset", "owner/data").commit(files)
    assert pinned("hub:owner/data/b") == f"hub:owner/data/b@{commit}" == pinned(f"hub:owner/data/b@{commit}")
    found = find_texts("hub:owner/data/b", "text")
    assert list(found) == [["b train"]]
    assert (list(found.files), found.uri) == (["b/train-00000-of-00001.parquet"], f"hub:owner/data@{commit}")


def test_a_repository_with_text_at_its_top_needs_none(stub: Hub) -> None:
    stub.add("dataset", "owner/data").commit({"train.txt": b"one\n\ntwo\n", "validation.txt": b"three\n"})
    assert list(find_texts("hub:owner/data", "text")) == [["one\n", "two\n"]]


def test_a_repository_without_text_is_refused(stub: Hub) -> None:
    stub.add("dataset", "owner/data").commit({"README.md": b"#"})
    with pytest.raises(UserError, match=r"hub:owner/data has no text: expected train.txt"):
        find_texts("hub:owner/data", "text")
