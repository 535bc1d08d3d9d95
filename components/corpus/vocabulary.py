"""A WordPiece vocabulary, made from text: the same bytes for the same text, every time.

The tokenizers library counts pairs and merges them (Sennrich et al., arXiv 1508.07909), most frequent first. Between pairs of
the same count it takes that with the lower token numbers, and it numbers characters within words ("##a") as it comes upon them,
in the order of a hash table that is another in every process; of characters of the same count it also leaves out any. So here
both are chosen and numbered before it begins.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from components.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MOST_CHARACTERS = 1000
"""The rarest beyond these become [UNK]: text of any size has some characters that occur a few times."""
WITHIN = "##"
"""Before a token that does not begin a word."""
LEAST_COUNT = 2
"""Pairs that occur less often are not merged."""


def make_vocabulary(texts: Iterable[list[str]], size: int, lowercase: bool) -> list[str]:
    """The tokens, in the order of their numbers: SPECIAL, the characters, the characters within words, what was merged.

    Args:
        texts: Gone through twice.
        size: At most so many tokens.

    Raises:
        UserError: no text, or more characters than would fit.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.trainers import WordPieceTrainer

    normalizer = BertNormalizer(lowercase=lowercase)
    counts: Counter[str] = Counter()
    for some in texts:
        counts.update(normalizer.normalize_str("\n".join(some)))
    characters = sorted(chosen(counts))
    if not characters:
        raise UserError("the source has no text to make a vocabulary from")
    known = [*SPECIAL, *characters, *(WITHIN + character for character in characters)]
    if len(known) > size:
        raise UserError(
            f"vocabulary_size is {size}, and the text's {len(characters)} characters alone take {len(known)}: give more"
        )
    tokenizer = Tokenizer(WordPiece({}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, BertPreTokenizer()
    trainer = WordPieceTrainer(
        vocab_size=size,
        min_frequency=LEAST_COUNT,
        special_tokens=known,
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        continuing_subword_prefix=WITHIN,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    numbers = tokenizer.get_vocab()
    return sorted(numbers, key=lambda token: numbers[token])


def chosen(counts: Counter[str]) -> list[str]:
    """The most frequent characters, of equals the first in Unicode's order; no spaces."""
    by_count = sorted((-count, character) for character, count in counts.items() if not character.isspace())
    return [character for _, character in by_count[:MOST_CHARACTERS]]


def tokenizer_of(tokens: Sequence[str], lowercase: bool) -> "PreTrainedTokenizerBase":
    """BERT's, over these tokens.

    Raises:
        UserError: one of SPECIAL is not among them, or a token is there twice.
    """
    if missing := [token for token in SPECIAL if token not in tokens]:
        raise UserError(f"the vocabulary has no {', '.join(missing)}: give one of BERT's kind")
    numbers = {token: number for number, token in enumerate(tokens)}
    if len(numbers) < len(tokens):
        twice = next(token for token, count in Counter(tokens).items() if count > 1)
        raise UserError(f"the vocabulary has {twice!r} more than once: mend it")
    from transformers import BertTokenizer

    return BertTokenizer(vocab=numbers, do_lower_case=lowercase)
