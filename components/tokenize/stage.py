"""Texts in, Parquet out: one file per split, ready to train on, with the tokenizer beside it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from components import parameters
from components.artifacts import Artifact, Manifest, combined_digest
from components.errors import UserError
from components.models import load_tokenizer
from components.parameters import documented
from components.tasks import Task
from components.tokenize.read import Source, read_source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STATISTICS = "statistics.json"
TOKENIZER = "tokenizer"
EXAMPLES = "examples.json"
NUM_EXAMPLES = 5
ROWS_AT_ONCE = 2000
ROW_GROUP = 50_000


@documented
def tokenize(
    *,
    task: str,
    source: str,
    model: str,
    output_dir: Path,
    max_length: int = parameters.max_length,
    text_columns: list[str] = parameters.text_columns,
    label_column: str = parameters.label_column,
    skip_malformed_rows: bool = parameters.skip_malformed_rows,
    num_sample_rows: int = parameters.num_sample_rows,
    seed: int = parameters.seed,
) -> Manifest:
    """Tokenize a GLUE task, or your own data, to Parquet.

    Writes SPLIT.parquet (zstd; input_ids: list<int32>, token_type_ids where the model has them, label, idx) for each split,
    tokenizer/, task.json (labels and metrics), statistics.json (lengths, labels, what was cut), examples.json and
    manifest.json.
    """
    if max_length < 8:
        raise UserError(f"max_length is {max_length}: give at least 8 tokens")
    found = read_source(task, source, text_columns, label_column, skip_malformed_rows, num_sample_rows, seed)
    tokenizer = load_tokenizer(model)
    if max_length > tokenizer.model_max_length:
        raise UserError(f"max_length is {max_length}, but {model} takes at most {tokenizer.model_max_length} tokens")
    artifact = Artifact(
        output_dir,
        "tokenize",
        {
            "task": task,
            "source": source,
            "model": model,
            "max_length": max_length,
            "text_columns": text_columns,
            "label_column": label_column,
            "skip_malformed_rows": skip_malformed_rows,
            **({"num_sample_rows": num_sample_rows, "seed": seed} if source == "sample" else {}),
        },
        {"source": combined_digest(found.inputs), "tokenizer": tokenizer_digest(tokenizer)},
    )
    if manifest := artifact.cached():
        return manifest
    with artifact.building() as folder:
        statistics: dict[str, Any] = {"source_files": found.inputs, "skipped_rows": found.num_skipped, "splits": {}}
        for split, texts in found.splits.items():
            statistics["splits"][split] = _write_split(folder / f"{split}.parquet", texts, tokenizer, found.task, max_length)
        tokenizer.model_max_length = max_length  # so that whoever uses it later cuts where we did
        tokenizer.save_pretrained(folder / TOKENIZER)
        found.task.write(folder)
        (folder / EXAMPLES).write_text(json.dumps(_examples(found), indent=1) + "\n")
        (folder / STATISTICS).write_text(json.dumps(statistics, indent=1) + "\n")
    for split, numbers in statistics["splits"].items():
        print(
            f"{split}: {numbers['rows']} rows, {numbers['tokens']} tokens, "
            f"{numbers['mean_length']:.1f} a row, longest {numbers['max_length']}, {numbers['truncated']} cut",
            flush=True,
        )
    return artifact.manifest()


def tokenizer_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """sha256 of what decides the tokens; not of padding and truncation, which are ours."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    kept = {key: value for key, value in backend.items() if key not in ("padding", "truncation", "version")}
    return combined_digest({"tokenizer": json.dumps(kept, sort_keys=True)})


def _write_split(
    path: Path, texts: pa.Table, tokenizer: "PreTrainedTokenizerBase", task: Task, max_length: int
) -> dict[str, Any]:
    """Tokenize one split to `path`. Returns its rows, tokens, lengths in tokens, label counts and rows cut."""
    lengths, num_truncated = [], 0
    names: list[str] = [name for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names]
    tokens = [(name, pa.list_(pa.int32())) for name in names]
    schema = pa.schema([*tokens, ("label", texts.schema.field("label").type), ("idx", pa.int32())])
    with (
        pq.ParquetWriter(path, schema, compression="zstd") as writer,
        tqdm(total=len(texts), desc=f"tokenize {path.stem}", unit="rows", disable=None) as bar,
    ):
        for group in _batches(texts, ROW_GROUP):
            parts = []
            for batch in _batches(group, ROWS_AT_ONCE):
                columns, truncated = _encode(batch, tokenizer, names, task, max_length)
                num_truncated += truncated
                lengths.append(np.diff(columns["input_ids"].offsets.to_numpy()))
                parts.append(pa.table({**columns, "label": batch["label"], "idx": batch["idx"]}, schema))
                bar.update(len(batch))
            writer.write_table(pa.concat_tables(parts).combine_chunks())
    return {**_length_statistics(np.concatenate(lengths)), "truncated": num_truncated, "labels": _label_counts(texts, task)}


def _examples(found: Source) -> dict[str, Any]:
    """The first rows of the first validation split (or the only split) as raw text, for whoever wants to see or try some."""
    split = min(found.splits, key=lambda name: (not name.startswith("validation"), name))
    rows = found.splits[split].slice(0, NUM_EXAMPLES).select(list(found.task.text_columns)).to_pylist()
    return {"split": split, "rows": rows}


def _batches(table: pa.Table, size: int) -> Iterator[pa.Table]:
    return (table.slice(start, size) for start in range(0, len(table), size))


def _encode(
    batch: pa.Table, tokenizer: "PreTrainedTokenizerBase", names: list[str], task: Task, max_length: int
) -> tuple[dict[str, pa.ListArray], int]:
    """The batch's token columns, and how many of its rows were cut to `max_length`."""
    texts = [batch[column].to_pylist() for column in task.text_columns]
    encoded = tokenizer(*texts, truncation=True, max_length=max_length, return_attention_mask=False)
    columns = {name: pa.array(encoded[name], pa.list_(pa.int32())) for name in names}
    return columns, sum(bool(encoding.overflowing) for encoding in encoded.encodings or ())


def _length_statistics(lengths: np.ndarray) -> dict[str, Any]:
    quantiles = np.quantile(lengths, (0.5, 0.95, 0.99)).tolist()
    return {
        "rows": len(lengths),
        "tokens": int(lengths.sum()),
        "mean_length": float(lengths.mean()),
        **dict(zip(("median_length", "p95_length", "p99_length"), quantiles, strict=True)),
        "max_length": int(lengths.max()),
        "histogram": np.bincount(lengths).tolist(),
    }


def _label_counts(texts: pa.Table, task: Task) -> dict[str, int]:
    if task.is_regression:
        return {}
    labels, counts = np.unique(texts["label"].to_numpy(), return_counts=True)
    names = [task.label_names[label] if label >= 0 else "unlabelled" for label in labels]
    return dict(zip(names, counts.tolist(), strict=True))
