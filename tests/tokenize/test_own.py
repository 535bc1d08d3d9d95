"""Own data without a validation file: a text that was held out once is held out for ever, whatever comes to stand around it."""

import csv
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from components.tokenize import files
from components.tokenize.read import read_source
from components.tokenize.rows import tables_of

SPLITS = ("train", "validation")
Row = tuple[Any, ...]
"""The texts, then the label: a name, or its number."""


def split(folder: Path, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """What becomes of a CSV with these rows; texts and label numbers."""
    columns = ("first", "second")[: len(rows[0]) - 1]
    path = folder / "own.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([(*columns, "label"), *rows])
    return sides(path, columns)


def sides(path: Path, columns: Sequence[str]) -> dict[str, list[Row]]:
    found = read_source("own", str(path), columns, "label", False, 0, 0)
    assert list(found.splits) == list(SPLITS)
    kept = {}
    for name, stretches in found.splits.items():
        assert all(sum(map(len, stretch.tables())) == stretch.num_rows for stretch in stretches())
        kept[name] = pa.concat_tables(tables_of(stretches())).select([*columns, "label"]).to_pylist()
    return {name: [tuple(row.values()) for row in rows] for name, rows in kept.items()}


def texts(rows: Sequence[Row]) -> set[Row]:
    return {row[:-1] for row in rows}


def generated(number: int, seed: int = 0) -> list[Row]:
    """Labels as rare as a twentieth; a text in ten stands there twice, sometimes with another label."""
    drawn = random.Random(seed)
    rows = [(f"ticket {seed} {row}", "abc"[min(drawn.randrange(20), 2)]) for row in range(number)]
    return [*rows, *((text, drawn.choice("abc")) for text, _ in drawn.sample(rows, number // 10))]


def appended(rows: list[Row], more: list[Row]) -> list[Row]:
    return [*rows, *more]


def inserted(rows: list[Row], more: list[Row]) -> list[Row]:
    return [*rows[:100], *more, *rows[100:]]


def shuffled(rows: list[Row], more: list[Row]) -> list[Row]:
    return random.Random(1).sample([*rows, *more], len(rows) + len(more))


def sorted_by_label(rows: list[Row], more: list[Row]) -> list[Row]:
    return sorted([*rows, *more], key=lambda row: row[-1])


@pytest.mark.parametrize("grown", [appended, inserted, shuffled, sorted_by_label])
@pytest.mark.parametrize("seed", range(3))
def test_no_row_changes_sides_when_others_come(
    tmp_path: Path, grown: Callable[[list[Row], list[Row]], list[Row]], seed: int
) -> None:
    rows = generated(2000, seed)
    before = split(tmp_path, rows)
    for more in ([], generated(400, seed + 100), generated(5000, seed + 200)):
        after = split(tmp_path, grown(rows, more))
        assert sum(map(len, after.values())) == len(rows) + len(more)
        for name in SPLITS:
            assert texts(before[name]) <= texts(after[name])


def test_no_row_changes_sides_when_others_go(tmp_path: Path) -> None:
    rows = generated(5000)
    before, after = split(tmp_path, rows), split(tmp_path, rows[1000:4000])
    for name in SPLITS:
        assert texts(after[name]) <= texts(before[name])


def test_a_text_that_stands_there_twice_is_on_one_side(tmp_path: Path) -> None:
    made = split(tmp_path, generated(2000))
    assert not texts(made["train"]) & texts(made["validation"])
    assert len(made["validation"]) > len(texts(made["validation"]))  # some of them were held out


def test_about_a_tenth_of_every_label_is_held_out(tmp_path: Path) -> None:
    """Five standard deviations of what is drawn with one chance in ten."""
    rows = [(f"text {row}", "abc"[row % 20 // 9]) for row in range(20_000)]
    held_out = [row[-1] for row in split(tmp_path, rows)["validation"]]
    for number, count in enumerate((9000, 9000, 2000)):
        assert abs(held_out.count(number) - count / 10) < 5 * (count * 0.09) ** 0.5


@pytest.mark.parametrize("seed", range(20))
def test_a_label_with_two_texts_is_on_both_sides_and_one_with_a_single_text_in_training(tmp_path: Path, seed: int) -> None:
    """Labels of one to six texts, each once or twice."""
    drawn = random.Random(seed)
    rows = [(f"{seed} {label} {row}", f"{label:02}") for label in range(40) for row in range(1 + label % 6)]
    rows += drawn.sample(rows, 50)
    drawn.shuffle(rows)
    made = {name: {row[-1] for row in part} for name, part in split(tmp_path, rows).items()}
    assert made["train"] == set(range(40))
    assert made["validation"] == {label for label in range(40) if label % 6}


@pytest.mark.parametrize("seed", range(20))
def test_no_label_is_kept_from_training_where_texts_have_several(tmp_path: Path, seed: int) -> None:
    drawn = random.Random(seed)
    rows = [(f"text {drawn.randrange(30)}", f"label {drawn.randrange(12)}") for _ in range(60)]
    made = split(tmp_path, rows)
    assert {row[-1] for row in made["train"]} == set(range(len({label for _, label in rows})))
    assert not texts(made["train"]) & texts(made["validation"])
    assert made["validation"]


@pytest.mark.parametrize("number", [2, 5, 2000])
def test_of_a_regression_some_are_held_out_however_few(tmp_path: Path, number: int) -> None:
    rows = [(f"text {row}", str(row / 4)) for row in range(number)]
    made = split(tmp_path, rows)
    assert sum(map(len, made.values())) == number
    assert all(made.values())
    if number == 2000:
        assert 140 < len(made["validation"]) < 260
        grown = split(tmp_path, [*rows, *((f"text {row}", "0.5") for row in range(2000, 4000))])
        assert all(texts(made[name]) <= texts(grown[name]) for name in SPLITS)


def test_a_pair_is_held_out_as_a_whole(tmp_path: Path) -> None:
    rows = [(f"premise {row // 50}", f"hypothesis {row % 50}", "no" if row % 3 else "yes") for row in range(2000)]
    made = split(tmp_path, [*rows, *rows[::2]])
    assert not texts(made["train"]) & texts(made["validation"])
    held_out = texts(made["validation"])
    assert 130 < len(held_out) < 270
    assert len({first for first, _ in held_out}) > 30  # not all pairs of some premises
    assert held_out <= texts(split(tmp_path, [*generated_pairs(), *rows])["validation"])


def generated_pairs() -> list[Row]:
    return [(text, "reply", "no" if label == "a" else "yes") for text, label in generated(500)]


def test_neither_the_format_nor_where_pieces_end_changes_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = generated(300)
    expected = split(tmp_path, rows)
    monkeypatch.setattr(files, "ROWS_AT_ONCE", 7)
    assert split(tmp_path, rows) == expected
    table = pa.table({"first": [text for text, _ in rows], "label": [label for _, label in rows]})
    pq.write_table(table, tmp_path / "own.parquet", row_group_size=90)
    assert sides(tmp_path / "own.parquet", ("first",)) == expected
    (tmp_path / "own").mkdir()
    for part in (0, 1):
        place = tmp_path / "own" / f"train-{part:05}-of-00002.parquet"
        pq.write_table(table.slice(part * 200, 200 if part == 0 else None), place)
    assert sides(tmp_path / "own", ("first",)) == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("one", "0.5")], r"own\.csv has 1 row and no label with two different texts: too few to hold some out"),
        ([("one", "a"), ("two", "b")], r"own\.csv has 2 rows and no label with two different texts: too few"),
        ([("one", "a"), ("two", "b")] * 50, r"own\.csv has 100 rows and no label with two different texts: too few"),
    ],
)
def test_what_cannot_be_split_is_refused(tmp_path: Path, rows: list[Row], message: str) -> None:
    with pytest.raises(UserError, match=message):
        split(tmp_path, rows)
