"""A corpus as examples for masked-LM: sequences of one length, cut from its tokens, masked anew in every epoch."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from components.artifacts.names import STATISTICS, TOKENS, WORD_STARTS
from components.modeling.packing import move
from components.training.data import Batch
from components.training.masking import choose_tokens, choose_words, mask
from components.training.randomness import MASKS, key


@dataclass(frozen=True)
class Special:
    """Numbers of tokens.  ordinary: (number,) int64, all that are not special."""

    begin: int
    end: int
    mask: int
    ordinary: Tensor

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Special":
        special = set(tokenizer.all_special_ids)
        ordinary = torch.tensor([number for number in range(len(tokenizer)) if number not in special])
        return cls(tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id, ordinary)  # type: ignore[arg-type]

    @functools.cached_property
    def is_ordinary(self) -> Tensor:
        """(number,) bool"""
        size = 1 + max(self.begin, self.end, self.mask, int(self.ordinary.max()))
        return torch.zeros(size, dtype=torch.bool).index_fill_(0, self.ordinary, True)


@dataclass(frozen=True)
class Sequences:
    """Example i is the corpus' i-th stretch of length - 2 tokens, between the two special ones.

    tokens: (num_tokens,) of an unsigned type.  word_starts: (num_tokens / 8,) uint8, bits; both mapped from files.
    length: of every example.  probability: share of its length - 2 tokens that is masked, to the nearest number, one at least.
    per_epoch: updates of an epoch.  seed: with the epoch and the example it decides the masks, and nothing else does.
    """

    tokens: np.ndarray
    word_starts: np.ndarray
    special: Special
    length: int
    probability: float
    whole_words: bool
    per_epoch: int
    seed: int

    def __len__(self) -> int:
        return len(self.tokens) // (self.length - 2)

    @functools.cached_property
    def lengths(self) -> Tensor:
        return torch.tensor([self.length]).expand(len(self))

    @property
    def num_masked(self) -> int:
        """Tokens of an example that are predicted."""
        return max(1, round(self.probability * (self.length - 2)))

    def original(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, length) int64 tokens, unmasked, and bool, whether a word begins."""
        places = (rows[:, None] * (self.length - 2) + torch.arange(self.length - 2)).numpy()
        inner = torch.from_numpy(self.tokens[places].astype(np.int64))
        bits = torch.from_numpy((self.word_starts[places >> 3] >> (7 - (places & 7)) & 1).astype(bool))
        first, last = (torch.full((len(rows), 1), number) for number in (self.special.begin, self.special.end))
        edge = torch.ones(len(rows), 1, dtype=torch.bool)
        starts = torch.cat([edge, bits, edge], 1)
        starts[:, 1] = True  # whatever it was cut from
        return torch.cat([first, inner, last], 1), starts

    def batch(self, rows: Tensor, pad_id: int, device: torch.device, packed: bool = False, update: int = 0) -> Batch:
        """As update number `update`, which is of an epoch, masks them. Nothing is padded."""
        tokens, starts = self.original(rows)
        keys = key(self.seed, MASKS, update // self.per_epoch, rows[:, None], torch.arange(1, self.length + 1))
        allowed = self.special.is_ordinary[tokens]
        chosen = choose_words(keys, allowed, self.num_masked, starts) if self.whole_words else None
        places, real = chosen or choose_tokens(keys, allowed, self.num_masked)
        masked = mask(tokens, keys, places, real, self.special.mask, self.special.ordinary)
        return Batch(
            move(masked.tokens, device),
            move(torch.ones_like(tokens), device),
            None,
            move(masked.labels, device),
            rows,
            self.lengths[rows] if packed else None,
            move(masked.places, device),
        )


def read_sequences(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    probability: float,
    whole_words: bool,
    global_batch_size: int,
    seed: int,
) -> Sequences:
    """Of what components.corpus wrote to `folder`. Its files are mapped, not read: a corpus may be larger than the memory."""
    statistics = json.loads((folder / STATISTICS).read_text())
    num_rows = statistics["num_tokens"] // (length - 2)
    return Sequences(
        np.memmap(folder / TOKENS, statistics["token_type"], "r"),
        np.memmap(folder / WORD_STARTS, np.uint8, "r"),
        Special.of(tokenizer),
        length,
        probability,
        whole_words,
        -(-num_rows // global_batch_size),
        seed,
    )
