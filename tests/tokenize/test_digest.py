from typing import Any

import pyarrow as pa
import pytest

from components.tasks.table import TASKS
from components.tokenize import digest as module
from components.tokenize.digest import RowsDigest, joined

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
