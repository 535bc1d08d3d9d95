"""What MLflow runs to answer requests. It is copied into the model version and imports nothing else of this project.

predict takes raw text: strings for a task with one text column, rows with the text columns for a task with two. It answers with
one row each: `label`, `score` (that label's probability) and `probability_<label>` for every label; `score` alone for a
regression.
"""

import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

BATCH_SIZE = 64


class TextClassifier(PythonModel):  # type: ignore[misc]  # MLflow's class is untyped
    def load_context(self, context: PythonModelContext) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = Path(context.artifacts["model"])
        self.task: dict[str, Any] = json.loads((folder / "task.json").read_text())
        self.tokenizer = AutoTokenizer.from_pretrained(folder)  # with the max_length of the training data
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32").eval()

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        columns: list[str] = self.task["text_columns"]
        texts = pd.DataFrame(model_input)  # MLflow hands a list of strings on as it is
        if len(columns) == 1 and texts.shape[1] == 1:
            texts.columns = pd.Index(columns)
        if missing := [column for column in columns if column not in texts]:
            raise ValueError(f"no column {', '.join(missing)}: give rows with {', '.join(columns)}")
        scores = self._scores([texts[column].astype(str).tolist() for column in columns])
        labels: list[str] = self.task["label_names"]
        if not labels:
            return pd.DataFrame({"score": scores[:, 0]})
        answers = {"label": [labels[number] for number in scores.argmax(1)], "score": scores.max(1)}
        return pd.DataFrame(answers | {f"probability_{label}": scores[:, number] for number, label in enumerate(labels)})

    def _scores(self, texts: list[list[str]]) -> Any:
        """(rows, outputs) float64: probabilities, or the scores of a regression. Computed in order of length."""
        import torch

        order = sorted(range(len(texts[0])), key=lambda row: sum(len(column[row]) for column in texts))
        scores = torch.empty(len(order), self.model.config.num_labels, dtype=torch.float64)
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            parts = [[column[row] for row in rows] for column in texts]
            inputs = self.tokenizer(*parts, truncation=True, padding=True, return_tensors="pt")
            with torch.inference_mode():
                logits = self.model(**inputs).logits.double()
            scores[rows] = logits.softmax(-1) if self.task["label_names"] else logits
        return scores.numpy()


mlflow.models.set_model(TextClassifier())
