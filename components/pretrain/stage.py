"""Pre-training, from a corpus to a model that predicts masked tokens, and that `adapt` takes. One program for 1 or N ranks."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from components import cli, parameters
from components.artifacts.folders import Artifact, Manifest, origin, read_manifest
from components.artifacts.names import STATISTICS, TOKENIZER, TRAINING
from components.errors import UserError
from components.modeling.load import files_digest, load_tokenizer, model_files, model_origin, pinned, tokenizer_digest
from components.pretrain.settings import OF_TRAINING, Pretraining, as_given, check, settle_pretraining
from components.storage.state import check_state
from components.train.settings import OF_METHODS, Settled
from components.train.stage import ASIDE, UNDECISIVE, Material, fit


@cli.taking(Pretraining, OF_TRAINING, OF_METHODS)
def pretrain(
    *,
    corpus_dir: Path,
    output_dir: Path,
    checkpoint_dir: Path | None = parameters.checkpoint_dir,
    settings: str = parameters.settings,
    **given: Any,
) -> Manifest:
    """Train a transformer to predict masked tokens of a corpus; on many ranks under torchrun.

    Writes model.safetensors, config.json, the tokenizer, metrics.jsonl and timings.jsonl (a line an update), training.json and
    manifest.json: a folder that `adapt --model` takes. Stopped or killed and called again, it goes on from its last checkpoint
    and writes what it would have.
    """
    asked = as_given(settings, given)
    artifact, wanted, settled = plan(corpus_dir, output_dir, asked)
    if manifest := artifact.cached():
        return manifest
    return fit(artifact, settled, asked, checkpoint_dir, partial(_material, corpus_dir, wanted, settled))


def plan(corpus_dir: Path, output_dir: Path, given: Mapping[str, Any]) -> tuple[Artifact, Pretraining, Settled]:
    """What `pretrain` will write with these parameters, and what of them takes effect; nothing slow is imported to say so.

    Raises:
        UserError: a parameter that is none, a corpus that is not whole, or one without a whole sequence.
    """
    check(given)
    if given.get("initial_model"):
        given = {**given, "initial_model": pinned(given["initial_model"])}
    corpus = read_manifest(corpus_dir, "corpus")
    num_tokens = json.loads((corpus_dir / STATISTICS).read_text())["num_tokens"]
    num_rows = num_tokens // (given.get("sequence_length", parameters.sequence_length) - 2)
    if not num_rows:
        raise UserError(
            f"{corpus_dir} has {num_tokens} tokens, fewer than one sequence: give more text or a lower sequence_length"
        )
    wanted, settled = settle_pretraining(given, num_rows)
    decisive = {**settled.values, **(vars(wanted) if wanted.initial_model else vars(wanted) | wanted.shape)}
    decisive = {name: value for name, value in decisive.items() if name not in (*UNDECISIVE, "model")}
    inputs, origins = {"corpus": corpus["digest"]}, {"corpus": origin(corpus_dir, corpus)}
    if model := wanted.initial_model:
        check_state(model, settled.training.model_state)
        files = model_files(model)
        inputs["model"], origins["model"] = files_digest(model, files), model_origin(model, files)
    return Artifact(output_dir, "pretrain", decisive, inputs, origins, aside=ASIDE, record=TRAINING), wanted, settled


def planned(corpus_dir: Path, output_dir: Path, settings: str) -> Artifact:
    """What `pretrain` will write with these settings."""
    return plan(corpus_dir, output_dir, as_given(settings, {}))[0]


def _material(corpus_dir: Path, wanted: Pretraining, settled: Settled) -> Material:
    from components.modeling.masked_lm import build_masked_lm, load_masked_lm
    from components.training.objectives import MaskedLM
    from components.training.sequences import read_sequences

    training, length = settled.training, wanted.sequence_length
    tokenizer = load_tokenizer(str(corpus_dir / TOKENIZER))
    if (model := wanted.initial_model) and tokenizer_digest(load_tokenizer(model)) != tokenizer_digest(tokenizer):
        raise UserError(f"{corpus_dir} was made with another vocabulary than that of {model}: give initial_model there too")
    sequences = read_sequences(
        corpus_dir, tokenizer, length, wanted.mask_probability, wanted.whole_words, training.global_batch_size, training.seed
    )
    tokenizer.model_max_length = length  # positions beyond are not trained
    if model:
        load = partial(load_masked_lm, model, len(tokenizer), training.dropout, length)
    else:
        load = partial(build_masked_lm, tokenizer=tokenizer, dropout=training.dropout, sequence_length=length, **wanted.shape)
    effective = {**({} if model else wanted.shape), "num_masked_tokens": sequences.num_masked}
    return Material(sequences, tokenizer, MaskedLM(), load, lambda folder: None, effective)
