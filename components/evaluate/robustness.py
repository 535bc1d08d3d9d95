"""How much of the score is left under noise: on the word embeddings, random and adversarial, and in the texts.

Noise on the embeddings has, for each example, an L2 norm that is a share of the embeddings' own. Adversarial noise goes up the
task's loss, one step along its gradient (fast gradient method: Miyato et al., arXiv 1605.07725). Noise in the texts keeps their
meaning for a reader: swapped letters, upper case, odd white space. All of it is the same every time.
"""

import itertools
import random
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from components.evaluate.analysis import texts_of
from components.evaluate.predict import TOKENS, answers, pieces_of, predict
from components.modeling.packed import is_packed
from components.tasks.metrics import measure, score
from components.tasks.table import Task
from components.training.budget import Progress
from components.training.data import Batch, Split
from components.training.memory import within_memory
from components.training.noise import noise_size, normal_noise
from components.training.objectives import objective_of

RADII = (0.1, 0.2, 0.4)
TYPO_RATE = 0.1
SPACES = (" ", "  ", "\t", " \n ")


def robustness(model: PreTrainedModel, rows: Split, tokenizer: PreTrainedTokenizerBase, task: Task) -> dict[str, float]:
    """The score of these rows as they are (`clean`), and under each noise."""
    outputs = _under_embedding_noise(model, rows, tokenizer.pad_token_id, task)
    for name, noise in TEXT_NOISES.items():
        noisy = _with_text_noise(rows, tokenizer, task, noise)
        outputs[name] = predict(model, noisy, tokenizer.pad_token_id, task, name)[0]
    labels = rows.labels.numpy()
    return {name: score(measure(task, labels, answers(each, task))) for name, each in outputs.items()}


def _under_embedding_noise(model: PreTrainedModel, rows: Split, pad_id: int, task: Task) -> dict[str, np.ndarray]:
    """Name of the noise -> (rows, outputs) logits; `clean` among them."""
    outputs: dict[str, np.ndarray] = {}

    def compute(tokens: int) -> None:
        outputs.update(_compute(model, rows, pad_id, task, tokens))

    within_memory(TOKENS[model.device.type], int(rows.lengths.max()), compute, lambda: None)
    return outputs


def _compute(model: PreTrainedModel, rows: Split, pad_id: int, task: Task, tokens: int) -> dict[str, np.ndarray]:
    names = ["clean", *(f"{kind} {radius}" for kind in ("random", "adversarial") for radius in RADII)]
    outputs = {name: torch.empty(len(rows), task.num_outputs) for name in names}
    device, objective = next(model.parameters()).device, objective_of(task.is_regression)
    with tqdm(total=len(rows), desc="evaluate robustness", unit=" samples", disable=None) as bar:
        for piece in pieces_of(rows, tokens):
            batch = rows.batch(piece, pad_id, device, is_packed(model))
            embeddings: Tensor = model.get_input_embeddings()(batch.input_ids).detach()  # type: ignore[misc]
            leaf = embeddings.requires_grad_()
            logits = objective.outputs(model, batch, leaf)
            (gradient,) = torch.autograd.grad(objective.losses(logits, batch).sum(), leaf)
            outputs["clean"][piece] = logits.detach().float().cpu()
            directions = {
                "random": normal_noise(batch, embeddings.shape[-1], 1.0, Progress(0, 0.0, 0)),
                "adversarial": gradient * batch.attention_mask[..., None],
            }
            with torch.no_grad():
                for kind, direction in directions.items():
                    for radius in RADII:
                        noise = _of_length(direction, radius, embeddings, batch)
                        noisy = objective.outputs(model, batch, embeddings + noise)
                        outputs[f"{kind} {radius}"][piece] = noisy.float().cpu()
            bar.update(len(piece))
    return {name: each.numpy() for name, each in outputs.items()}


def _of_length(direction: Tensor, radius: float, embeddings: Tensor, batch: Batch) -> Tensor:
    """The direction, as long as `radius` times the example's embeddings; nothing where it has no length."""
    size = noise_size(direction, "l2", "sequence")
    wanted = radius * noise_size(embeddings * batch.attention_mask[..., None], "l2", "sequence")
    return torch.where(size > 0, direction * wanted / size, 0.0)


def _with_text_noise(
    rows: Split, tokenizer: PreTrainedTokenizerBase, task: Task, noise: Callable[[str, random.Random], str]
) -> Split:
    """The rows, tokenized anew from their noisy texts."""
    columns: list[list[str]] = [[] for _ in task.text_columns]
    for row in range(len(rows)):
        ids = rows.tokens["input_ids"][rows.offsets[row] : rows.offsets[row + 1]].tolist()
        texts = texts_of(ids, tokenizer)
        for number, column in enumerate(columns):
            column.append(noise(texts[number] if number < len(texts) else "", random.Random(row)))
    encoded = tokenizer(*columns, truncation=True)
    tokens = {name: torch.tensor(list(itertools.chain.from_iterable(encoded[name])), dtype=torch.int32) for name in rows.tokens}
    lengths = torch.tensor([0, *map(len, encoded["input_ids"])])
    return Split(tokens, lengths.cumsum(0), rows.labels)


def with_typos(text: str, drawn: random.Random) -> str:
    """Two neighbouring letters inside some of the longer words change places."""
    words = text.split(" ")
    for number, word in enumerate(words):
        if len(word) > 3 and drawn.random() < TYPO_RATE:
            at = drawn.randrange(1, len(word) - 2)
            words[number] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def in_capitals(text: str, drawn: random.Random) -> str:
    return text.upper()


def with_odd_spaces(text: str, drawn: random.Random) -> str:
    first, *words = text.split(" ")
    return " " + first + "".join(drawn.choice(SPACES) + word for word in words) + " "


TEXT_NOISES: Mapping[str, Callable[[str, random.Random], str]] = {
    "typos": with_typos,
    "capitals": in_capitals,
    "odd spaces": with_odd_spaces,
}
