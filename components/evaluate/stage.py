"""How good the model is: GLUE's metrics on every validation split, beside what any model should beat."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import Artifact, Manifest, read_manifest
from components.errors import UserError
from components.models import load_tokenizer
from components.parameters import documented
from components.tasks import Task
from components.tokenize.files import find_split
from components.tokenize.stage import EXAMPLES, TOKENIZER, tokenizer_digest

METRICS = "metrics.json"
TRAINING_METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.parquet"
REPORT = "report.html"


@documented
def evaluate(*, model_dir: Path, data_dir: Path, output_dir: Path) -> Manifest:
    """Measure a model that components.train wrote, in fp32.

    Writes metrics.json (score, every metric, confusion matrices, baselines), predictions.parquet (split, idx, label,
    prediction, scores: class probabilities, or the one score of a regression), report.html, examples.json and manifest.json.
    """
    artifact = plan(model_dir, data_dir, output_dir)
    if manifest := artifact.cached():
        return manifest
    task = Task.read(data_dir)
    if Task.read(model_dir).label_names != task.label_names:
        raise UserError(f"{model_dir} has the labels {Task.read(model_dir).label_names}, {data_dir} has {task.label_names}")
    tokenizer = load_tokenizer(str(model_dir))
    if tokenizer_digest(tokenizer) != tokenizer_digest(load_tokenizer(str(data_dir / TOKENIZER))):
        raise UserError(f"{data_dir} was tokenized for another model than {model_dir}")
    splits = sorted({path.stem.partition("-")[0] for path in data_dir.glob("validation*.parquet")})
    if not splits:
        raise UserError(f"{data_dir} has no validation split: nothing to measure on")

    # Seconds to import: `--help`, the checks above and what is cached need not wait.
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    from components.evaluate.baselines import baselines
    from components.evaluate.metrics import confusion_matrix, measure, score
    from components.evaluate.predict import predict
    from components.evaluate.report import write_report
    from components.train.data import read_split
    from components.train.packing import pack

    logging.disable_progress_bar()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForSequenceClassification.from_pretrained(model_dir, dtype="float32").to(device).eval()
    pack(model)
    with artifact.building() as folder:
        results: dict[str, Any] = {"task": task.name, "splits": {}}
        tables = []
        for split in splits:
            rows = read_split(data_dir, split)
            scores, predictions = predict(model, rows, tokenizer.pad_token_id, task, split)
            labels = rows.labels.numpy()
            results["splits"][split] = {"rows": len(rows), "metrics": measure(task, labels, predictions)}
            if not task.is_regression:
                results["splits"][split]["confusion_matrix"] = confusion_matrix(task, labels, predictions)
            tables.append(_prediction_table(split, data_dir, predictions, scores))
        results["score"] = float(np.mean([score(result["metrics"]) for result in results["splits"].values()]))
        results["baselines"] = baselines(task, data_dir, splits[0])
        predicted = pa.concat_tables(tables)
        pq.write_table(predicted, folder / PREDICTIONS, compression="zstd")
        (folder / METRICS).write_text(json.dumps(results, indent=1) + "\n")
        examples = _answered(json.loads((data_dir / EXAMPLES).read_text()), predicted, task)
        (folder / EXAMPLES).write_text(json.dumps(examples, indent=1) + "\n")
        training = [json.loads(line) for line in (model_dir / TRAINING_METRICS).read_text().splitlines()]
        manifests = read_manifest(model_dir, "train"), read_manifest(data_dir, "tokenize")
        write_report(folder / REPORT, task, results, predicted, examples, training, *manifests)
    for line in summary(results):
        print(line, flush=True)
    return artifact.manifest()


def plan(model_dir: Path, data_dir: Path, output_dir: Path) -> Artifact:
    """What `evaluate` will write with these arguments."""
    model, data = read_manifest(model_dir, "train"), read_manifest(data_dir, "tokenize")
    return Artifact(output_dir, "evaluate", {}, {"model": model["digest"], "data": data["digest"]})


def flat(results: dict[str, Any]) -> dict[str, float]:
    """Every number of metrics.json by one name: score, SPLIT_METRIC and baseline_NAME."""
    numbers = {"score": results["score"]}
    for split, result in results["splits"].items():
        numbers |= {f"{split}_{name}": value for name, value in result["metrics"].items()}
    return numbers | {f"baseline_{name}": value for name, value in results["baselines"].items()}


def summary(results: dict[str, Any]) -> list[str]:
    """The result in a few lines of text."""
    lines = [
        f"{split} ({result['rows']} rows): " + ", ".join(f"{name} {value:.4f}" for name, value in result["metrics"].items())
        for split, result in results["splits"].items()
    ]
    rivals = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in results["baselines"].items())
    return [*lines, f"score {results['score']:.4f} ({rivals})"]


def _prediction_table(split: str, data_dir: Path, predictions: np.ndarray, scores: np.ndarray) -> pa.Table:
    source = pa.concat_tables(pq.read_table(path, columns=["idx", "label"]) for path in find_split(data_dir, split))
    return pa.table(
        {
            "split": pa.array([split] * len(source)).dictionary_encode(),
            "idx": source["idx"],
            "label": source["label"],
            "prediction": predictions,
            "scores": pa.array(list(scores), pa.list_(pa.float32())),
        }
    )


def _answered(examples: dict[str, Any], predicted: pa.Table, task: Task) -> dict[str, Any]:
    """The first texts of the first split, with the model's answers to them: [{"prediction": ..., "score": ...}]."""
    answers = []
    for row in predicted.slice(0, len(examples["rows"])).to_pylist():
        if task.is_regression:
            answers.append({"score": row["prediction"]})
        else:
            answers.append({"label": task.label_names[row["prediction"]], "score": max(row["scores"])})
    return {**examples, "answers": answers}
