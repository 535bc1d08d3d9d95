"""A model's answers to the rows of a split."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from components.errors import UserError
from components.modeling.packed import is_packed
from components.parameters import EvaluationPrecision
from components.tasks.table import Task
from components.training.data import Split, micro_batches
from components.training.memory import within_memory
from components.training.objectives import objective_of

TOKENS = {"cpu": 2048, "cuda": 32_768}
"""At once: a CPU gains nothing from more, a GPU little. Nothing is kept for a backward pass."""


def possible(precision: EvaluationPrecision, device: torch.device) -> EvaluationPrecision:
    """What it comes to on the device: a CPU has no tf32."""
    return "fp32" if precision == "tf32" and device.type == "cpu" else precision


@contextlib.contextmanager
def arithmetic(precision: EvaluationPrecision, device: torch.device) -> Iterator[None]:
    """Within the block matrix products are computed so."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        # Weights that were cast without gradients cannot be kept for a pass that has some.
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def pieces_of(rows: Split, tokens: int) -> list[Tensor]:
    """The numbers of the rows, in pieces of about as many tokens and like lengths, the longest first."""
    return micro_batches(torch.arange(len(rows)), rows.lengths, tokens, 0, 1)


def predict(model: PreTrainedModel, rows: Split, pad_id: int, task: Task, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(rows, outputs) probabilities or scores, and (rows,) class numbers or scores.

    Raises:
        UserError: some are not finite, or one example alone is too much for the memory.
    """
    outputs = torch.empty(len(rows), task.num_outputs)
    device, objective = next(model.parameters()).device, objective_of(task.is_regression)

    def compute(tokens: int) -> None:
        with torch.inference_mode(), tqdm(total=len(rows), desc=f"evaluate {split}", unit=" samples", disable=None) as bar:
            for piece in pieces_of(rows, tokens):
                batch = rows.batch(piece, pad_id, device, is_packed(model))
                logits = objective.outputs(model, batch).float()
                outputs[piece] = (logits if task.is_regression else logits.softmax(-1)).cpu()
                bar.update(len(piece))

    within_memory(TOKENS[device.type], int(rows.lengths.max()), compute, lambda: None)
    if not outputs.isfinite().all():
        raise UserError(f"the model answers {split} with NaN: it has diverged; train it again with a lower learning_rate")
    return outputs.numpy(), answers(outputs.numpy(), task)


def answers(outputs: np.ndarray, task: Task) -> np.ndarray:
    """(rows,) class numbers or scores.  outputs: (rows, outputs) logits, probabilities or scores."""
    chosen: np.ndarray = outputs.squeeze(-1) if task.is_regression else outputs.argmax(-1)
    return chosen
