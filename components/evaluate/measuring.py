"""What a model answers on each validation split, and how good that is."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from components.artifacts.names import STATISTICS, TEXT_DIGEST, TEXTS
from components.artifacts.splits import find_split
from components.evaluate.analysis import describe, texts_of, worst
from components.evaluate.overlap import also_in_training
from components.evaluate.predict import predict
from components.evaluate.robustness import robustness
from components.tasks.intervals import interval, resample
from components.tasks.metrics import score
from components.tasks.table import Task
from components.training.data import read_split


@dataclass(frozen=True)
class Measured:
    """results: splits, score and interval, as metrics.json has them.  predicted: a row for each of the splits'.  errors: the
    surest wrong answers, with their texts.
    """

    results: dict[str, Any]
    predicted: pa.Table
    errors: list[dict[str, Any]]


def measure_splits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    data_dir: Path,
    splits: Sequence[str],
    robustness_rows: int,
    trained: np.ndarray | None,
) -> Measured:
    """Measure the model on the splits.

    Args:
        trained: The digests of the texts that it was trained on, where these are known.

    Raises:
        UserError: some of its answers are not finite.
    """
    statistics = json.loads((data_dir / STATISTICS).read_text())["splits"]
    results: dict[str, Any] = {"splits": {}}
    tables, resampled_scores = [], []
    errors: list[dict[str, Any]] = []
    for number, split in enumerate(splits):
        rows = read_split(data_dir, split)
        scores, predictions = predict(model, rows, tokenizer.pad_token_id, task, split)
        labels = rows.labels.numpy()
        resampled = resample(task, labels, predictions, seed=number)
        resampled_scores.append(np.mean(list(resampled.values()), axis=0))
        intervals = {name: interval(values) for name, values in resampled.items()}
        described = describe(task, labels, predictions, scores, rows.lengths.numpy())
        results["splits"][split] = {**described, "intervals": intervals, "digest": statistics[split]["digest"]}
        if robustness_rows:
            results["splits"][split]["robustness"] = robustness(model, rows.drawn(robustness_rows), tokenizer, task)
        for row in worst(task, labels, predictions, scores):
            answer = _answer(task, labels[row], predictions[row], scores[row])
            ids = rows.tokens["input_ids"][rows.offsets[row] : rows.offsets[row + 1]].tolist()
            errors.append({"split": split, **answer, "text": " | ".join(texts_of(ids, tokenizer))})
        tables.append(_prediction_table(split, data_dir, predictions, scores))
        if trained is not None:
            digests = tables[-1][TEXT_DIGEST].to_numpy()
            results["splits"][split]["also_in_training"] = also_in_training(task, labels, predictions, digests, trained)
    results["score"] = float(np.mean([score(result["metrics"]) for result in results["splits"].values()]))
    results["interval"] = interval(np.mean(resampled_scores, axis=0))
    return Measured(results, pa.concat_tables(tables), errors)


def answered(
    examples: dict[str, Any],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    data_dir: Path,
    split: str,
) -> dict[str, Any]:
    """The first texts of a split, with the model's answers to them as it is served, in fp32: a label, if any, and its score."""
    rows = read_split(data_dir, split).head(len(examples["rows"]))
    scores, predictions = predict(model, rows, tokenizer.pad_token_id, task, "examples")
    if task.is_regression:
        return {**examples, "answers": [{"score": float(score)} for score in predictions]}
    labels = [task.label_names[number] for number in predictions]
    return {
        **examples,
        "answers": [{"label": label, "score": float(each.max())} for label, each in zip(labels, scores, strict=True)],
    }


def _prediction_table(split: str, data_dir: Path, predictions: np.ndarray, scores: np.ndarray) -> pa.Table:
    columns = ["idx", "label", TEXT_DIGEST, TEXTS]
    source = pa.concat_tables(pq.read_table(path, columns=columns) for path in find_split(data_dir, split))
    return pa.table(
        {
            "split": pa.array([split] * len(source)).dictionary_encode(),
            "idx": source["idx"],
            "label": source["label"],
            "prediction": predictions,
            "scores": pa.array(list(scores), pa.list_(pa.float32())),
            TEXT_DIGEST: source[TEXT_DIGEST],
            TEXTS: source[TEXTS],
        }
    )


def _answer(task: Task, label: Any, prediction: Any, scores: np.ndarray) -> dict[str, Any]:
    """A row's label, and what the model says instead."""
    if task.is_regression:
        return {"label": float(label), "prediction": float(prediction)}
    names = task.label_names
    return {"label": names[label], "prediction": names[prediction], "probability": float(scores[prediction])}
