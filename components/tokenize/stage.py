"""Texts in, Parquet out: one file per split, ready to train on, with the tokenizer beside it."""

import itertools
import json
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from components import cli, parameters
from components.artifacts.folders import Artifact, Manifest, combined_digest
from components.artifacts.names import EXAMPLES, STATISTICS, TEXT_DIGEST, TEXTS, TOKENIZER
from components.artifacts.provenance import Origin, Tracking, uri_of
from components.errors import UserError
from components.modeling import load
from components.modeling.load import files_digest, load_tokenizer, model_origin, tokenizer_files
from components.storage.state import check_state
from components.storage.transfer import local
from components.tasks.table import UNLABELLED, Task
from components.tokenize import read
from components.tokenize.counts import Counts, name_and_add, show
from components.tokenize.digest import BLOCK_ROWS, RowsDigest, text_digests
from components.tokenize.read import read_source
from components.tokenize.rows import Source, tables_of
from components.tokenize.settings import STATES, Tokenizing
from components.tokenize.shards import ShardWriter, shard_name, share

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

OF_THE_SOURCE = ("source", "text_columns", "label_column", "skip_malformed_rows", "num_sample_rows", "seed")
OF_A_PART = ("part", "num_parts")
PART = "tokenize --part"
"""A part is no tokenized task: the stages that want one refuse it by this name."""
NUM_EXAMPLES = 5
ROWS_AT_ONCE = 500


@cli.taking(Tokenizing)
def tokenize(
    *,
    output_dir: Path,
    part: int = parameters.part,
    num_parts: int = parameters.num_parts,
    source_files: Path | None = parameters.source_files,
    settings: str = parameters.settings,
    **given: Any,
) -> Manifest:
    """Tokenize a GLUE task, or your own data, to Parquet.

    Writes SPLIT.parquet (zstd; input_ids: list<int32>, token_type_ids where the model has them, label, idx, text_digest:
    int64, and of validation splits texts: list<string>) for each split, or SPLIT-00000-of-00003.parquet and so on where it
    is large; tokenizer/, task.json (labels and metrics), statistics.json (lengths, labels, what was cut), examples.json and
    manifest.json. With num_parts, writes one part of that, for components.tokenize.merge.
    """
    tokenizing = tied(cli.made(Tokenizing, settings, given, Tracking))
    artifact, found = plan(tokenizing, output_dir, part, num_parts, source_files)
    if manifest := artifact.cached():
        return manifest
    tokenizer, max_length = load_tokenizer(tokenizing.model), tokenizing.max_length
    if max_length > tokenizer.model_max_length:
        raise UserError(f"max_length is {max_length}, but {tokenizing.model} takes at most {tokenizer.model_max_length} tokens")
    backend: Tokenizer = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.no_padding()
    backend.enable_truncation(max_length)
    with artifact.building() as folder:
        counts: dict[str, dict[int, Counts]] = {}
        for split, stretches in found.splits.items():
            shards = share(stretches(), tokenizing.shard_rows, part, num_parts or 1)
            counts[split] = dict(_write_shards(folder, split, shards, tokenizer, found.task, max_length))
        splits = counts if num_parts else name_and_add(folder, found.task, counts)
        statistics = {"source_files": found.inputs, "splits": splits, "skipped_rows": found.num_skipped}
        tokenizer.model_max_length = max_length  # so that whoever uses it later cuts where we did
        tokenizer.save_pretrained(folder / TOKENIZER)
        found.task.write(folder)
        (folder / EXAMPLES).write_text(json.dumps(_examples(found), indent=1) + "\n")
        (folder / STATISTICS).write_text(json.dumps(statistics, indent=1, default=asdict) + "\n")
    if num_parts:
        files = ", ".join(f"{len(shards)} of {split}" for split, shards in counts.items())
        print(f"part {part} of {num_parts}, counted from 0: files {files}", flush=True)
    else:
        show(splits)
    return artifact.manifest()


def tied(tokenizing: Tokenizing) -> Tokenizing:
    """With names of the hub tied to their commits, as components.resolve has them."""
    return replace(tokenizing, model=load.pinned(tokenizing.model), source=read.pinned(tokenizing.source))


def plan(
    tokenizing: Tokenizing, output_dir: Path, part: int = 0, num_parts: int = 0, source_files: Path | None = None
) -> tuple[Artifact, Source]:
    """What `tokenize` will write with these arguments, and where it reads; nothing slow is imported to say so."""
    tokenizing = tied(tokenizing)
    if num_parts < 0 or not 0 <= part < (num_parts or 1):
        raise UserError(f"part {part} of {num_parts}: parts are counted from 0")
    if num_parts and tokenizing.shard_rows % BLOCK_ROWS:
        raise UserError(f"shard_rows is {tokenizing.shard_rows}: to tokenize in parts give a multiple of {BLOCK_ROWS}")
    check_state(tokenizing.source, tokenizing.source_state)
    check_state(tokenizing.model, tokenizing.model_state)
    decisive = {name: value for name, value in vars(tokenizing).items() if name not in STATES}
    if tokenizing.source != "sample":
        del decisive["num_sample_rows"], decisive["seed"]
    if num_parts:
        decisive |= {"part": part, "num_parts": num_parts}
    found = read_source(tokenizing.task, **{name: getattr(tokenizing, name) for name in OF_THE_SOURCE})
    if source_files:
        found.inputs = _known(found, source_files)
    files = tokenizer_files(tokenizing.model)
    inputs = {"source": combined_digest(found.inputs), "tokenizer": files_digest(tokenizing.model, files)}
    origins = {"source": _origin(tokenizing.source, found), "tokenizer": model_origin(tokenizing.model, files)}
    return Artifact(output_dir, PART if num_parts else "tokenize", decisive, inputs, origins), found


def _origin(source: str, found: Source) -> Origin:
    if found.generator:
        return {"uri": source, "files": found.inputs, "generator": found.generator}
    path = local(source)
    return {"uri": uri_of(path) if path.exists() else source, "files": found.inputs}


def _known(found: Source, source_files: Path) -> dict[str, str]:
    """The digests that somebody has found before."""
    try:
        known: dict[str, str] = json.loads(source_files.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {source_files}: {error}") from None
    if set(known) != set(found.digests):
        raise UserError(f"{source_files} names other files than the source has: leave it out or make it again")
    return known


def _write_shards(
    folder: Path,
    split: str,
    shards: Iterator[tuple[int, pa.Table]],
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    max_length: int,
) -> Iterator[tuple[int, Counts]]:
    """Tokenize rows of a split to a file in `folder` for each shard."""
    with tqdm(desc=f"tokenize {split}", unit=" rows", disable=None) as bar:
        for shard, rows in itertools.groupby(shards, key=lambda it: it[0]):
            tables = (table for _, table in rows)
            yield shard, _write_shard(folder / shard_name(split, shard), tables, tokenizer, task, max_length, bar)


def _write_shard(
    path: Path,
    tables: Iterator[pa.Table],
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    max_length: int,
    bar: "tqdm[Any]",
) -> Counts:
    names: list[str] = [name for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names]
    kinds = {**dict.fromkeys(names, pa.list_(pa.int32())), "label": pa.float32() if task.is_regression else pa.int64()}
    kinds |= {"idx": pa.int32(), TEXT_DIGEST: pa.int64()}
    if path.name.startswith("validation"):
        kinds[TEXTS] = pa.list_(pa.string())
    schema = pa.schema(kinds)
    histogram, num_truncated = np.zeros(max_length + 1, np.int64), 0
    labels = np.zeros(len(task.label_names) + 1, np.int64)  # first of the rows without one
    digest = RowsDigest(task)
    with ShardWriter(path, schema) as writer:
        for batch, encodings in _encoded(tables, tokenizer.backend_tokenizer, task):
            ids = _ragged([encoding.ids for encoding in encodings])
            columns = {"input_ids": ids, "label": batch["label"], "idx": batch["idx"]}
            columns[TEXT_DIGEST] = pa.array(text_digests(batch, task.text_columns))
            if TEXTS in kinds:
                columns[TEXTS] = _together(batch, task.text_columns)
            if len(names) > 1 and any(encodings[0].type_ids):
                columns["token_type_ids"] = _ragged([encoding.type_ids for encoding in encodings])
            elif len(names) > 1:  # single texts: no need to ask for each
                zeros = pa.array(np.zeros(len(ids.values), np.int32))
                columns["token_type_ids"] = pa.ListArray.from_arrays(ids.offsets, zeros)
            writer.write(pa.table(columns, schema))
            digest.update(batch)
            lengths = np.diff(ids.offsets.to_numpy())
            histogram += np.bincount(lengths, minlength=max_length + 1)
            num_truncated += sum(bool(encodings[row].overflowing) for row in np.flatnonzero(lengths == max_length))
            if not task.is_regression:
                labels += np.bincount(batch["label"].to_numpy() - UNLABELLED, minlength=len(labels))
            bar.update(len(batch))
    return Counts(histogram.tolist(), num_truncated, labels.tolist(), digest.blocks())


def _encoded(tables: Iterator[pa.Table], tokenizer: "Tokenizer", task: Task) -> Iterator[tuple[pa.Table, list["Encoding"]]]:
    """Rows and their encodings, in order. The tokenizer has all cores and works ahead: it needs no Python while it does."""

    def encode(batch: pa.Table) -> list["Encoding"]:
        texts = [batch[column].to_pylist() for column in task.text_columns]
        return tokenizer.encode_batch_fast(texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)))

    ahead: deque[tuple[pa.Table, Future[list[Encoding]]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for table in tables:
            for start in range(0, len(table), ROWS_AT_ONCE):
                batch = table.slice(start, ROWS_AT_ONCE)
                ahead.append((batch, pool.submit(encode, batch)))
                if len(ahead) > 2:
                    batch, encodings = ahead.popleft()
                    yield batch, encodings.result()
        for batch, encodings in ahead:
            yield batch, encodings.result()


def _ragged(rows: list[list[int]]) -> pa.ListArray:
    """Lists of numbers as one Arrow column, list<int32>, at a third of what pa.array takes."""
    offsets, values = array("i", [0]), array("i")
    for row in rows:
        values.fromlist(row)
        offsets.append(len(values))
    return pa.ListArray.from_arrays(pa.array(np.frombuffer(offsets, np.int32)), pa.array(np.frombuffer(values, np.int32)))


def _together(rows: pa.Table, columns: Sequence[str]) -> pa.ListArray:
    """list<string>: the texts of each row."""
    texts = pa.concat_arrays([chunk for name in columns for chunk in rows[name].chunks])
    order = np.arange(len(texts)).reshape(len(columns), -1).T.ravel()
    offsets = np.arange(0, len(texts) + 1, len(columns), dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), texts.take(pa.array(order)))


def _examples(found: Source) -> dict[str, Any]:
    """The first rows of the first validation split (or the only split) as raw text, for whoever wants to see or try some."""
    split = min(found.splits, key=lambda name: (not name.startswith("validation"), name))
    first = next(table for table in tables_of(found.splits[split]()) if len(table))
    return {"split": split, "rows": first.slice(0, NUM_EXAMPLES).select(list(found.task.text_columns)).to_pylist()}
