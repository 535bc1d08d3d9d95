"""Text in, tokens out: two files that every rank maps into its memory, with the tokenizer beside them."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from components import cli, parameters
from components.artifacts.folders import Artifact, Manifest, combined_digest, file_digest
from components.artifacts.names import STATISTICS, TOKENIZER, TOKENS, WORD_STARTS
from components.artifacts.provenance import Origin, Tracking, uri_of
from components.corpus import texts, vocabulary
from components.corpus.settings import Corpus
from components.corpus.texts import Texts, find_texts
from components.errors import UserError
from components.modeling import load
from components.modeling.load import files_digest, load_tokenizer, model_origin, tokenizer_files
from components.storage.state import check_state
from components.storage.transfer import local

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STATES = ("source_state", "model_state")
"""Say what stood at a place, and not what is to be done."""
OF_OWN_VOCABULARY = ("vocabulary_size", "lowercase")
NARROW = 2**16
"""Vocabularies of up to so many tokens take two bytes a token, others four."""
NEEDED = ("cls_token_id", "sep_token_id", "mask_token_id", "pad_token_id")


@cli.taking(Corpus)
def corpus(*, output_dir: Path, settings: str = parameters.settings, **given: Any) -> Manifest:
    """Turn text into tokens to pre-train on.

    Writes tokens.bin (all texts end to end, a separator after each; uint16, or uint32 for more than 65,536 tokens, little
    endian), word_starts.bin (a bit for each token, eight to a byte, the first the highest: whether it begins a word),
    tokenizer/, statistics.json and manifest.json. Memory does not grow with the text, but for the words of a vocabulary that is
    made from it.
    """
    wanted = tied(cli.made(Corpus, settings, given, Tracking))
    artifact, found = plan(wanted, output_dir)
    if manifest := artifact.cached():
        return manifest
    tokenizer = tokenizer_for(wanted, found)
    with artifact.building() as folder:
        counts = write_tokens(folder, found, tokenizer)
        tokenizer.save_pretrained(folder / TOKENIZER)
        statistics = {"source_files": found.digests, "num_vocabulary": len(tokenizer), **counts}
        (folder / STATISTICS).write_text(json.dumps(statistics, indent=1) + "\n")
    words = "corpus: {num_texts:,} texts, {num_tokens:,} tokens, a vocabulary of {num_vocabulary:,}, {num_unknown:,} unknown"
    print(words.format(**statistics), flush=True)
    return artifact.manifest()


def tied(wanted: Corpus) -> Corpus:
    """With names of the hub tied to their commits."""
    own = wanted.vocabulary
    return replace(
        wanted,
        source=texts.pinned(wanted.source),
        initial_model=wanted.initial_model and load.pinned(wanted.initial_model),
        vocabulary=load.pinned(own) if own and not _is_file(own) else own,
    )


def plan(wanted: Corpus, output_dir: Path) -> tuple[Artifact, Texts]:
    """What `corpus` will write with these settings, and where it reads; nothing slow is imported to say so.

    Raises:
        UserError: no text, or no vocabulary of that name.
    """
    wanted = tied(wanted)
    check_state(wanted.source, wanted.source_state)
    if wanted.initial_model:
        check_state(wanted.initial_model, wanted.model_state)
    decisive = {name: value for name, value in vars(wanted).items() if name not in STATES}
    given = wanted.vocabulary or wanted.initial_model
    if given:
        kept = OF_OWN_VOCABULARY[1:] if _is_file(given) else ()
        decisive = {name: value for name, value in decisive.items() if name not in OF_OWN_VOCABULARY or name in kept}
    found = find_texts(wanted.source, wanted.text_column)
    inputs = {"source": combined_digest(found.digests)}
    origins: dict[str, Origin] = {"source": {"uri": found.uri, "files": found.digests}}
    if given and _is_file(given):
        file = local(given)
        if not file.is_file():
            raise UserError(f"vocabulary {given}: no such file, give a vocab.txt or a model's name")
        inputs["vocabulary"] = combined_digest({file.name: file_digest(file)})
        origins["vocabulary"] = {"uri": uri_of(file), "files": {file.name: file_digest(file)}}
    elif given:
        files = tokenizer_files(given)
        inputs["vocabulary"] = files_digest(given, files)
        origins["vocabulary"] = model_origin(given, files)
    return Artifact(output_dir, "corpus", decisive, inputs, origins), found


def tokenizer_for(wanted: Corpus, found: Texts) -> "PreTrainedTokenizerBase":
    """The one given, or one made from the text; without a limit on what it is given.

    Raises:
        UserError: it cannot be loaded, or lacks a token that masked-LM needs.
    """
    if given := wanted.vocabulary or wanted.initial_model:
        if _is_file(given):
            lines = local(given).read_text(encoding="utf-8").splitlines()
            tokenizer = vocabulary.tokenizer_of(lines, wanted.lowercase)
        else:
            tokenizer = load_tokenizer(given)
        if missing := [name.removesuffix("_id") for name in NEEDED if getattr(tokenizer, name) is None]:
            raise UserError(f"the vocabulary of {given} has no {', '.join(missing)}: masked-LM needs one, give another")
    else:
        tokens = vocabulary.make_vocabulary(found, wanted.vocabulary_size, wanted.lowercase)
        tokenizer = vocabulary.tokenizer_of(tokens, wanted.lowercase)
    backend: Any = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.no_padding()
    backend.no_truncation()
    return tokenizer


def _is_file(name: str) -> bool:
    return name.endswith(".txt")


def write_tokens(folder: Path, found: Texts, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """TOKENS and WORD_STARTS of the texts in `folder`. Returns what was counted, and the type of a token."""
    kind = np.dtype("<u2" if len(tokenizer) <= NARROW else "<u4")
    num_texts = num_tokens = num_unknown = 0
    left = np.zeros(0, bool)  # of a byte that is not full
    with ExitStack() as open_files:
        tokens_file, starts_file = (open_files.enter_context((folder / name).open("wb")) for name in (TOKENS, WORD_STARTS))
        bar = open_files.enter_context(tqdm(desc="corpus", unit=" tokens", disable=None, unit_scale=True))
        for tokens, starts, count in encoded(found, tokenizer):
            tokens_file.write(tokens.astype(kind).tobytes())
            bits = np.concatenate([left, starts])
            whole = len(bits) - len(bits) % 8
            starts_file.write(np.packbits(bits[:whole]).tobytes())
            left = bits[whole:]
            num_texts, num_tokens = num_texts + count, num_tokens + len(tokens)
            num_unknown += int((tokens == tokenizer.unk_token_id).sum()) if tokenizer.unk_token_id is not None else 0
            bar.update(len(tokens))
        starts_file.write(np.packbits(left).tobytes())
    counts = {"num_texts": num_texts, "num_tokens": num_tokens, "num_unknown": num_unknown}
    return {**counts, "token_type": kind.name}


def encoded(found: Texts, tokenizer: "PreTrainedTokenizerBase") -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Of some texts at a time: (tokens,) int64 with a separator after each text, (tokens,) bool, and how many texts."""
    backend: Any = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    end = [tokenizer.sep_token_id]
    for some in found:
        tokens: list[Any] = []
        starts: list[Any] = []
        for encoding in backend.encode_batch(some, add_special_tokens=False):
            tokens += [encoding.ids, end]
            starts += [begins(encoding.word_ids), [True]]
        yield np.concatenate(tokens).astype(np.int64), np.concatenate(starts).astype(bool), len(some)


def begins(word_ids: list[int | None]) -> np.ndarray:
    """Whether each token is the first of its word.  word_ids: of each token; None of a special one, a word of its own."""
    numbers = np.array([-1 if number is None else number for number in word_ids], np.int64)
    return (np.diff(numbers, prepend=-2) != 0) | (numbers == -1)
