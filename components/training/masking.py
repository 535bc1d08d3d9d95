"""Which tokens of a sequence masked-LM predicts, and what stands in their place: pure functions of random keys, one a token.

Devlin et al., BERT, arXiv 1810.04805, section 3.1 and appendix A.1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from components.training.randomness import scramble, shift, uniform

IGNORED = -100
"""Label of a place that is read and counts for nothing: a sequence may have fewer to predict than its neighbours."""
HIDDEN, REPLACED = 0.8, 0.1
LAST = 2**63 - 1


@dataclass(frozen=True)
class Masked:
    """places, labels: (batch, count) int64, in the order of the sequence; where the label is IGNORED the place is 0.  tokens:
    (batch, token) int64, what the model sees.
    """

    places: Tensor
    labels: Tensor
    tokens: Tensor


def choose_tokens(keys: Tensor, allowed: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` allowed tokens with the lowest keys, fewer where there are not as many.

    Args:
        keys: (batch, token) int64, random.  allowed: (batch, token) bool.

    Returns:
        (places, real): (batch, count) int64 and bool, in the order of the sequence, what is not real at the end.
    """
    lowest = keys.masked_fill(~allowed, LAST).argsort(dim=1, stable=True)[:, :count]
    return in_order(lowest, allowed.gather(1, lowest), keys.shape[1])


def choose_words(keys: Tensor, allowed: Tensor, count: int, starts: Tensor) -> tuple[Tensor, Tensor]:
    """All tokens of words, in the order of the words' keys, as far as they are no more than `count` together.

    A word that is too long for what is left is passed over, as BERT's own code does it.

    Args:
        keys, allowed: As above; a word's key is that of its first token, and a word is allowed if that is.
        starts: (batch, token) bool, whether a word begins; the first token of a sequence begins one in any case.

    Returns:
        As above.
    """
    length = keys.shape[1]
    starts = starts.clone()
    starts[:, 0] = True
    positions = torch.arange(length).expand_as(keys)
    first = positions.masked_fill(~starts, 0).cummax(1).values  # of each token's word
    sizes = torch.zeros_like(keys).scatter_add_(1, first, torch.ones_like(keys))
    order = keys.masked_fill(~(starts & allowed), LAST).argsort(dim=1, stable=True)
    able, size_of = (starts & allowed).gather(1, order), sizes.gather(1, order)
    taken, left = torch.zeros_like(allowed), torch.full((len(keys),), count)
    for rank in range(length):
        fits = able[:, rank] & (size_of[:, rank] <= left)
        taken[torch.arange(len(keys)), order[:, rank]] = fits
        left = left - size_of[:, rank] * fits
        if not (able[:, rank] & (left > 0)).any():
            break
    of_tokens = taken.gather(1, first)
    places = (~of_tokens).to(torch.int8).argsort(dim=1, stable=True)[:, :count]
    return in_order(places, of_tokens.gather(1, places), length)


def in_order(places: Tensor, real: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Sorted, what is not real last and as place 0."""
    places = places.masked_fill(~real, length).sort(1).values
    real = places < length
    return places.masked_fill(~real, 0), real


def mask(tokens: Tensor, keys: Tensor, places: Tensor, real: Tensor, mask_id: int, ordinary: Tensor) -> Masked:
    """Hide 80 % of the chosen tokens, replace 10 % by any ordinary one and leave 10 % as they are.

    Args:
        tokens: (batch, token) int64, unchanged.  keys: (batch, token) int64, random: those by which the places were chosen.
        ordinary: (number,) int64, the tokens that are not special.
    """
    original = tokens.gather(1, places)
    drawn = scramble(keys.gather(1, places))  # has nothing to do with which key was the lowest
    lot = uniform(drawn)
    other = ordinary[shift(scramble(drawn), 1) % len(ordinary)]
    seen = torch.where(lot < HIDDEN, mask_id, torch.where(lot < HIDDEN + REPLACED, other, original))
    changed = tokens.clone()
    rows = torch.arange(len(tokens))[:, None].expand_as(places)
    changed[rows[real], places[real]] = seen[real]
    return Masked(places, original.masked_fill(~real, IGNORED), changed)
