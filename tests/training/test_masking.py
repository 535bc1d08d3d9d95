"""What masked-LM predicts: how many, which, what stands there instead, and on what that depends."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from components.training.masking import IGNORED, choose_tokens, choose_words
from components.training.randomness import MASKS, key
from components.training.sequences import Sequences, Special, read_sequences

MASK, SEPARATOR, FIRST = 4, 3, 10
SPECIAL = Special(2, SEPARATOR, MASK, torch.arange(FIRST, 500))
CPU = torch.device("cpu")


def sequences(num_rows: int = 400, length: int = 64, separators: float = 0.02, **changes: object) -> Sequences:
    random = np.random.default_rng(0)
    tokens = random.integers(FIRST, 500, num_rows * (length - 2), np.uint16)
    tokens[random.random(len(tokens)) < separators] = SEPARATOR
    starts = (random.random(len(tokens)) < 0.6) | (tokens == SEPARATOR)
    starts[1:] |= tokens[:-1] == SEPARATOR
    given = {"length": length, "probability": 0.15, "whole_words": False, "per_epoch": 5, "seed": 0, **changes}
    return Sequences(tokens, np.packbits(starts), SPECIAL, **given)  # type: ignore[arg-type]


def changed(of: Sequences, rows: Tensor, update: int = 0) -> Tensor:
    return of.batch(rows, 0, CPU, update=update).input_ids


def test_a_sequence_is_its_stretch_of_the_corpus_between_two_special_tokens() -> None:
    of = sequences()
    tokens, starts = of.original(torch.tensor([0, 7]))
    assert tokens[1, 1:-1].tolist() == of.tokens[7 * 62 : 8 * 62].tolist()
    assert tokens[:, 0].tolist() == [2, 2]
    assert tokens[:, -1].tolist() == [SEPARATOR, SEPARATOR]
    bits = np.unpackbits(of.word_starts).astype(bool)
    assert starts[1, 2:-1].tolist() == bits[7 * 62 + 1 : 8 * 62].tolist()


@pytest.mark.parametrize("whole_words", [False, True])
def test_labels_are_the_original_tokens_of_the_places_and_the_rest_is_untouched(whole_words: bool) -> None:
    of, rows = sequences(whole_words=whole_words), torch.arange(400)
    tokens, _ = of.original(rows)
    batch = of.batch(rows, 0, CPU)
    assert batch.places is not None
    real = batch.labels != IGNORED
    assert torch.equal(batch.labels[real], tokens.gather(1, batch.places)[real])
    assert not batch.places[~real].any()
    read = torch.zeros_like(tokens).scatter_add_(1, batch.places, real.long())
    assert read.max() == 1
    assert torch.equal(batch.input_ids[read == 0], tokens[read == 0])
    assert (tokens[read == 1] >= FIRST).all()  # special tokens are never predicted
    assert (batch.places.masked_fill(~real, 64).diff(dim=1) >= 0).all()


def test_every_sequence_has_the_same_number_to_predict() -> None:
    of = sequences()
    assert of.num_masked == round(0.15 * 62) == 9
    assert ((of.batch(torch.arange(400), 0, CPU).labels != IGNORED).sum(1) == 9).all()


def test_eight_of_ten_are_hidden_one_replaced_and_one_left() -> None:
    of, rows = sequences(2000), torch.arange(2000)
    batch = of.batch(rows, 0, CPU)
    assert batch.places is not None
    seen = batch.input_ids.gather(1, batch.places)
    hidden, left = (seen == MASK).double().mean(), (seen == batch.labels).double().mean()
    sd = (0.8 * 0.2 / seen.numel()) ** 0.5
    assert float(hidden) == pytest.approx(0.8, abs=4 * sd)
    assert float(left) == pytest.approx(0.1, abs=4 * sd)
    replaced = seen[(seen != MASK) & (seen != batch.labels)]
    assert replaced.min() >= FIRST
    assert len(replaced.unique()) > 400  # any ordinary token may come


def test_every_place_is_chosen_as_often_as_any_other() -> None:
    of, rows = sequences(2000, separators=0.0), torch.arange(2000)
    batch = of.batch(rows, 0, CPU)
    assert batch.places is not None
    share = batch.places.flatten().bincount(minlength=64)[1:-1] / 2000
    assert float((share - 9 / 62).abs().max()) < 4.5 * (9 / 62 / 2000) ** 0.5


def test_masks_are_a_function_of_seed_epoch_and_example() -> None:
    of, rows = sequences(), torch.arange(30)
    every = changed(of, rows)
    assert torch.equal(changed(of, rows, update=4), every)  # the same epoch, of five updates
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert torch.equal(changed(of, shuffled), every[shuffled])
    assert torch.equal(torch.cat([changed(of, rows[:7]), changed(of, rows[7:])]), every)
    for other in (changed(of, rows, update=5), changed(sequences(seed=1), rows)):
        assert ((other != every).sum(1) > 5).all()


# --- whole words ---


def words_of(starts: Tensor) -> Tensor:
    starts = starts.clone()
    starts[:, 0] = True
    return starts.cumsum(1)


def test_of_a_word_all_tokens_are_predicted_or_none() -> None:
    of, rows = sequences(whole_words=True), torch.arange(400)
    _, starts = of.original(rows)
    batch = of.batch(rows, 0, CPU)
    assert batch.places is not None
    real = batch.labels != IGNORED
    chosen = torch.zeros_like(starts, dtype=torch.int64).scatter_add_(1, batch.places, real.long()).bool()
    word = words_of(starts)
    sizes = torch.zeros_like(word).scatter_add_(1, word - 1, torch.ones_like(word)).gather(1, word - 1)
    taken = torch.zeros_like(word).scatter_add_(1, word - 1, chosen.long()).gather(1, word - 1)
    assert ((taken == 0) | (taken == sizes)).all()
    assert (real.sum(1) <= of.num_masked).all()
    assert float(real.sum()) > 0.97 * 400 * of.num_masked
    assert (sizes[chosen] > 1).any()


def test_words_are_taken_in_the_order_of_their_keys_and_one_that_is_too_long_is_passed_over() -> None:
    """Beside a loop as BERT's own code has it."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        keys = torch.randint(-(2**62), 2**62, (1, 12), generator=generator)
        starts, allowed = (torch.rand(1, 12, generator=generator) < share for share in (0.5, 0.9))
        places, real = choose_words(keys, allowed, 4, starts)
        first = [0] + [at for at in range(1, 12) if starts[0, at]]
        words = {at: list(range(at, after)) for at, after in zip(first, [*first[1:], 12], strict=True) if allowed[0, at]}
        expected: list[int] = []
        for at in sorted(words, key=lambda at: int(keys[0, at])):
            if len(expected) + len(words[at]) <= 4:
                expected += words[at]
        assert places[real].tolist() == sorted(expected)


def test_fewer_are_predicted_where_there_are_not_as_many() -> None:
    keys = key(0, MASKS, 0, torch.arange(2)[:, None], torch.arange(1, 6))
    allowed = torch.tensor([[False, True, False, False, True], [False] * 5])
    places, real = choose_tokens(keys, allowed, 3)
    assert places.tolist() == [[1, 4, 0], [0, 0, 0]]
    assert real.tolist() == [[True, True, False], [False] * 3]


def test_a_corpus_is_mapped_and_not_read(tmp_path: Path) -> None:
    from components.modeling.load import load_tokenizer

    tokenizer = load_tokenizer("tiny")
    np.arange(5, 105, dtype=np.uint32).tofile(tmp_path / "tokens.bin")
    np.full(13, 255, np.uint8).tofile(tmp_path / "word_starts.bin")
    (tmp_path / "statistics.json").write_text(json.dumps({"num_tokens": 100, "token_type": "uint32"}))
    of = read_sequences(tmp_path, tokenizer, 12, 0.15, False, 4, 0)
    assert isinstance(of.tokens, np.memmap)
    assert (len(of), of.per_epoch, of.num_masked) == (10, 3, 2)
    assert of.original(torch.tensor([9]))[0][0, 1:-1].tolist() == list(range(95, 105))
