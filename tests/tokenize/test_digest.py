from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.tasks.table import TASKS
from components.tokenize import digest as module
from components.tokenize.digest import RowsDigest, joined, text_digests

ROWS: dict[str, list[Any]] = {
    "sentence1": ["a dog ran .", "", "naïve", "one two", "x"],
    "sentence2": ["b", "cd", "", "two", "y"],
    "label": [0, 1, -1, 0, 1],
}


def digest(*tables: pa.Table) -> str:
    made = RowsDigest(TASKS["rte"])
    for table in tables:
        made.update(table)
    return joined(made.blocks())


@pytest.mark.parametrize("cuts", [(5,), (1, 4), (2, 1, 2), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize("text", [pa.string(), pa.large_string()])
def test_how_the_rows_come_changes_nothing(cuts: tuple[int, ...], text: pa.DataType) -> None:
    schema = pa.schema([("sentence1", text), ("sentence2", text), ("label", pa.int64())])
    whole, start, tables = pa.table(ROWS, schema), 0, []
    for size in cuts:
        tables.append(whole.slice(start, size))
        start += size
    assert digest(*tables) == digest(pa.table(ROWS))
    assert digest(pa.concat_tables(tables)) == digest(pa.table(ROWS))


def test_whole_blocks_may_be_digested_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", 2)
    blocks = []
    for start, count in ((0, 2), (2, 3)):
        made = RowsDigest(TASKS["rte"])
        made.update(pa.table(ROWS).slice(start, count))
        blocks += made.blocks()
    assert len(blocks) == 3
    assert joined(blocks) == digest(pa.table(ROWS)) == digest(*(pa.table(ROWS).slice(row, 1) for row in range(5)))


@pytest.mark.parametrize("column", ["sentence1", "sentence2", "label"])
def test_another_value_order_or_border_is_another_digest(column: str) -> None:
    found = {digest(pa.table(ROWS))}
    changed = {**ROWS, column: [*ROWS[column][:4], "z" if column != "label" else 0]}
    found.add(digest(pa.table(changed)))
    found.add(digest(pa.table({**ROWS, column: ROWS[column][::-1]})))
    found.add(digest(pa.table(ROWS).slice(0, 4)))
    moved = {**ROWS, "sentence1": ["a dog ra", "n .", "naïve", "one two", "x"]}
    found.add(digest(pa.table(moved)))
    assert len(found) == 5


@pytest.mark.parametrize("text", [pa.string(), pa.large_string()])
def test_a_row_is_known_by_its_texts_wherever_it_stands(text: pa.DataType) -> None:
    columns = ("sentence1", "sentence2")
    table = pa.table(ROWS, pa.schema([("sentence1", text), ("sentence2", text), ("label", pa.int64())]))
    found = text_digests(table, columns)
    assert found.dtype == np.int64
    backwards = table.take([4, 3, 2, 1, 0]).drop_columns("label")
    assert text_digests(backwards, columns).tolist() == found[::-1].tolist()
    assert text_digests(pa.concat_tables([table.slice(2), table.slice(1, 1)]), columns).tolist() == found[[2, 3, 4, 1]].tolist()
    assert len(text_digests(table.slice(0, 0), columns)) == 0
    assert not set(text_digests(table, columns, "another purpose")) & set(found)


def test_where_a_text_ends_counts() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("c", "ab"), ("1:a", ""), ("1:", "a"), ("a1:", "")]
    table = pa.table(dict(zip("xy", zip(*pairs, strict=True), strict=True)))
    assert len(set(text_digests(table, "xy"))) == len(pairs)
    assert text_digests(table.slice(0, 1), "x") != text_digests(table.slice(0, 1), "y")


def test_a_text_keeps_its_digest_for_ever() -> None:
    """Stored with models: another would make what they were trained on unknown."""
    table = pa.table({"x": ["a dog ran ."], "y": ["naïve"]})
    assert text_digests(table, "xy").tolist() == [5480135036658040037]
