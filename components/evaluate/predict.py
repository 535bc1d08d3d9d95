"""A model's answers to the rows of a split."""

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from components.errors import UserError
from components.modeling.packing import is_packed
from components.tasks.table import Task
from components.training.data import Split
from components.training.objectives import objective_of

BATCH_SIZE = 64


def predict(model: PreTrainedModel, rows: Split, pad_id: int, task: Task, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(rows, outputs) probabilities or scores, and (rows,) class numbers or scores.

    Raises:
        UserError: some are not finite.
    """
    order = rows.lengths.argsort(descending=True, stable=True)
    outputs = torch.empty(len(rows), task.num_outputs)
    device, objective = next(model.parameters()).device, objective_of(task.is_regression)
    with torch.inference_mode(), tqdm(total=len(rows), desc=f"evaluate {split}", unit=" samples", disable=None) as bar:
        for piece in order.split(BATCH_SIZE):
            batch = rows.batch(piece, pad_id, device, is_packed(model))
            logits = objective.outputs(model, batch)
            outputs[piece] = (logits if task.is_regression else logits.softmax(-1)).float().cpu()
            bar.update(len(piece))
    if not outputs.isfinite().all():
        raise UserError(f"the model answers {split} with NaN: it has diverged; train it again with a lower learning_rate")
    return outputs.numpy(), answers(outputs.numpy(), task)


def answers(outputs: np.ndarray, task: Task) -> np.ndarray:
    """(rows,) class numbers or scores.  outputs: (rows, outputs) logits, probabilities or scores."""
    chosen: np.ndarray = outputs.squeeze(-1) if task.is_regression else outputs.argmax(-1)
    return chosen
