"""Small labelled sets in GLUE's schemas, generated: for a first run, and for tests, without a download.

Every grammar is built so that the label depends on how words go together, not on which words are there: counting words stays at
chance. MiniLM, after 75 updates, does not: it ends between 0.85 and 0.97 (docs/suite.md). What keeps it from 1: the splits
beyond the training split have words and longer sentences that it has not; and some labels are wrong, as they are wherever
people give them. The sets teach nothing about language and say nothing about a model's worth elsewhere.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from components.errors import UserError
from components.tasks.grammars import inference, pairs, sentences
from components.tasks.grammars.words import Draw
from components.tasks.table import GENERATED, UNLABELLED, Task

Row = tuple[tuple[str, ...], float]
VERSION = 2
"""Another one makes other rows."""
WRONG = 0.04
"""Share of the labels that are another than the right one, in each split with labels."""
SPREAD = 0.4
"""Standard deviation of what is added to each score of a regression."""
WORDS_DRAWN = 1500

GRAMMARS: Mapping[str, Callable[[Draw], tuple[Any, float]]] = {
    "cola": sentences.cola,
    "sst2": sentences.sst2,
    "mrpc": pairs.mrpc,
    "stsb": pairs.stsb,
    "qqp": pairs.qqp,
    "mnli": inference.mnli,
    "qnli": inference.qnli,
    "rte": inference.rte,
    "wnli": inference.wnli,
    "ax": inference.mnli,
}


def named(task: Task, seed: int) -> Task:
    """The task as its generated data have it: by a name of its own, and with what generated them."""
    noise = f"noise of {SPREAD:g} on the scores" if task.is_regression else f"{WRONG:.0%} of the labels wrong"
    return dataclasses.replace(task, name=GENERATED + task.name, generated=f"sample generator {VERSION}, seed {seed}, {noise}")


def generate(task: Task, num_rows: int, seed: int, noisy: bool = True) -> dict[str, list[Row]]:
    """The task's splits: `num_rows` distinct rows in the largest, a quarter of that in each other; none in two splits.

    Args:
        noisy: With labels that are wrong; without, the same rows have their right ones.

    Raises:
        UserError: the grammar has not that many sentences, or none for this task.
    """
    if task.name not in GRAMMARS:
        raise UserError(f"the sample has no task '{task.name}': choose one of {', '.join(GRAMMARS)}")
    if num_rows < 4:
        raise UserError(f"num_sample_rows is {num_rows}: give at least 4")
    random, seen = Random(f"{seed} {task.name}"), set[tuple[str, ...]]()
    splits: dict[str, list[Row]] = {}
    for split in task.files:
        rows = _distinct(task.name, Draw(random, beyond=split != "train"), seen)
        splits[split] = [next(rows) for _ in range(num_rows if split == "train" else max(1, num_rows // 4))]
        if split.startswith("test"):
            splits[split] = [(texts, UNLABELLED) for texts, _ in splits[split]]
        elif noisy:
            splits[split] = _with_noise(splits[split], task, Random(f"{seed} {task.name} {split}"))
    return splits


def words() -> list[str]:
    """All that there are in any task, sorted."""
    draw = Draw(Random(0), beyond=True)
    texts = (text for grammar in GRAMMARS.values() for _ in range(WORDS_DRAWN) for text in grammar(draw)[0])
    return sorted({word for text in texts for word in text.split()})


def _distinct(name: str, draw: Draw, seen: set[tuple[str, ...]]) -> Iterator[Row]:
    tries = 0
    while tries < 1000:
        texts, label = GRAMMARS[name](draw)
        tries += 1
        if texts not in seen:
            seen.add(texts)
            tries = 0
            yield texts, label
    raise UserError(f"the sample of '{name}' has only about {len(seen)} rows in all: give a smaller num_sample_rows")


def _with_noise(rows: list[Row], task: Task, random: Random) -> list[Row]:
    if task.label_range:
        low, high = task.label_range
        return [(texts, round(min(max(score + random.gauss(0, SPREAD), low), high), 1)) for texts, score in rows]
    wrong = set(random.sample(range(len(rows)), round(WRONG * len(rows))))
    count = len(task.label_names)
    return [
        (texts, (label + random.randrange(1, count)) % count if number in wrong else label)
        for number, (texts, label) in enumerate(rows)
    ]
