from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from components.errors import UserError
from components.tokenize.stage import tokenize
from components.training import data
from components.training.data import Split, micro_batches, read_split
from components.training.selection import num_examples, rows_of_update, updates_per_epoch


@pytest.mark.parametrize(("num_rows", "batch_size"), [(10, 3), (12, 3), (5, 8), (1, 1)])
def test_every_epoch_computes_every_row_once_in_an_order_of_its_own(num_rows: int, batch_size: int) -> None:
    per_epoch = updates_per_epoch(num_rows, batch_size)
    orders = []
    for epoch in range(3):
        updates = [rows_of_update(epoch * per_epoch + number, num_rows, batch_size, seed=7) for number in range(per_epoch)]
        assert all(len(rows) == batch_size for rows in updates[:-1])
        orders.append(torch.cat(updates).tolist())
        assert sorted(orders[-1]) == list(range(num_rows))
        assert num_examples((epoch + 1) * per_epoch, num_rows, batch_size) == (epoch + 1) * num_rows
    assert num_rows < 5 or orders[0] != orders[1] != orders[2]


def test_num_examples_counts_part_of_an_epoch() -> None:
    for num_updates in range(12):
        total = sum(len(rows_of_update(update, 10, 3, seed=0)) for update in range(num_updates))
        assert num_examples(num_updates, 10, 3) == total


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
@pytest.mark.parametrize("tokens", [1, 100, 2000])
@pytest.mark.parametrize("num_rows", [1, 33, 1024])
def test_ranks_and_micro_batches_share_an_update_out_without_loss(num_ranks: int, tokens: int, num_rows: int) -> None:
    rows = torch.randperm(num_rows)
    lengths = torch.randint(3, 60, (num_rows,))
    length_of = dict(zip(rows.tolist(), lengths.tolist(), strict=True))
    parts = [micro_batches(rows, lengths, tokens, rank, num_ranks) for rank in range(num_ranks)]
    assert sorted(torch.cat([piece for part in parts for piece in part]).tolist()) == sorted(rows.tolist())
    sums = [[sum(length_of[row] for row in piece.tolist()) for piece in part] for part in parts]
    assert all(0 < piece < tokens + 60 for part in sums for piece in part)
    loads = [sum(part) for part in sums]
    if num_rows == 1024:
        assert max(loads) <= 1.02 * min(loads)
        assert all(max(part) - min(part) < 120 or tokens == 1 for part in sums)


def test_a_split_in_several_files_is_read_as_one(tokenized: Callable[[str], Path], tmp_path: Path) -> None:
    tokenize(task="rte", source="sample", model="tiny", output_dir=tmp_path / "d", num_sample_rows=200, shard_rows=70)
    one, many = read_split(tokenized("rte"), "train"), read_split(tmp_path / "d", "train")
    assert torch.equal(one.offsets, many.offsets)
    assert torch.equal(one.labels, many.labels)
    assert all(torch.equal(values, many.tokens[name]) for name, values in one.tokens.items())
    with pytest.raises(UserError, match="has no test2 split"):
        read_split(tmp_path / "d", "test2")


@pytest.mark.parametrize("in_memory", [0, 2**30])
def test_a_split_holds_what_the_parquet_file_says(
    tokenized: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(data, "IN_MEMORY", in_memory)
    monkeypatch.setattr(data, "ROWS_AT_ONCE", 70)
    table = pq.read_table(tokenized("rte") / "train.parquet").to_pydict()
    split = read_split(tokenized("rte"), "train")
    rows = torch.tensor([5, 0, 199])
    batch = split.batch(rows, pad_id=0, device=torch.device("cpu"))
    for number, row in enumerate(rows.tolist()):
        length = len(table["input_ids"][row])
        assert batch.input_ids[number, :length].tolist() == table["input_ids"][row]
        assert batch.token_type_ids is not None
        assert batch.token_type_ids[number, :length].tolist() == table["token_type_ids"][row]
        assert batch.attention_mask[number].tolist() == [1] * length + [0] * (batch.input_ids.shape[1] - length)
        assert batch.input_ids[number, length:].sum() == 0
        assert batch.labels[number] == table["label"][row]
    assert batch.input_ids.shape[1] == split.lengths[rows].max()


def test_rows_that_are_drawn_are_whole_rows_from_all_of_the_split(tokenized: Callable[[str], Path]) -> None:
    """Sorted by label, the first half has one label only."""
    rows = read_split(tokenized("rte"), "train")
    order = rows.labels.argsort(stable=True)
    lengths = rows.lengths[order]
    pieces = [slice(int(rows.offsets[row]), int(rows.offsets[row + 1])) for row in order]
    tokens = {name: torch.cat([values[piece] for piece in pieces]) for name, values in rows.tokens.items()}
    by_label = Split(tokens, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]), rows.labels[order])
    drawn = by_label.drawn(80)
    assert len(drawn) == 80
    assert all(20 < count < 60 for count in drawn.labels.bincount())

    def examples(split: Split) -> list[tuple[int, ...]]:
        every = split.batch(torch.arange(len(split)), 0, torch.device("cpu"))
        assert every.token_type_ids is not None
        columns = torch.cat([every.labels[:, None], every.input_ids, every.token_type_ids], 1).tolist()
        return [tuple(number for number in row if number) for row in columns]

    there, found = examples(by_label), examples(drawn)
    places = [there.index(example) for example in found]
    assert places == sorted(set(places))
    assert examples(by_label.drawn(80)) == found
    assert by_label.drawn(len(by_label)) is by_label
