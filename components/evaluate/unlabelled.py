"""A model's answers to the test splits, whose labels GLUE's server keeps."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedModel

from components.artifacts.splits import find_split
from components.evaluate.predict import predict
from components.tasks.table import Task
from components.training.data import read_split


def write_test_predictions(path: Path, model: PreTrainedModel, data_dir: Path, pad_id: int, task: Task) -> None:
    """Write split, idx, prediction and scores of every test split in `data_dir` to one file; none where there is none."""
    tables = []
    for split in sorted({file.stem.partition("-")[0] for file in data_dir.glob("test*.parquet")}):
        scores, predictions = predict(model, read_split(data_dir, split), pad_id, task, split)
        columns = {
            "split": pa.array([split] * len(predictions)).dictionary_encode(),
            "idx": pa.concat_tables(pq.read_table(file, columns=["idx"]) for file in find_split(data_dir, split))["idx"],
            "prediction": predictions,
            "scores": pa.array(list(scores), pa.list_(pa.float32())),
        }
        tables.append(pa.table(columns))
    if tables:
        pq.write_table(pa.concat_tables(tables), path, compression="zstd")
