from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from components.errors import UserError
from components.tasks.metrics import measure, score
from components.tasks.sample import Row, generate
from components.tasks.table import TASKS, UNLABELLED, Task

TRAINABLE = [task for task in TASKS.values() if "train" in task.files]


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_task_has_its_splits_columns_and_labels(task: Task) -> None:
    splits = generate(task, 100, seed=1)
    assert set(splits) == set(task.files)
    for split, rows in splits.items():
        for texts, label in rows:
            assert len(texts) == len(task.text_columns)
            if split.startswith("test"):
                assert label == UNLABELLED
            elif task.label_range:
                assert task.label_range[0] <= label <= task.label_range[1]
            else:
                assert label in range(len(task.label_names))


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    assert generate(TASKS["sst2"], 50, seed=3) == generate(TASKS["sst2"], 50, seed=3)
    assert generate(TASKS["sst2"], 50, seed=3) != generate(TASKS["sst2"], 50, seed=4)


def test_no_text_is_in_two_splits() -> None:
    seen = Counter(texts for rows in generate(TASKS["mnli"], 1000, seed=0).values() for texts, _ in rows)
    assert seen.most_common(1)[0][1] == 1


@pytest.mark.parametrize("task", TRAINABLE, ids=lambda task: task.name)
def test_counting_words_does_not_solve_it(task: Task) -> None:
    splits = generate(task, 2000, seed=0)
    validation = next(rows for split, rows in splits.items() if split.startswith("validation"))
    counter = CountVectorizer(token_pattern=r"\S+")

    def words(rows: list[Row]) -> list[str]:
        return [" ".join(f"{number}{word}" for number, text in enumerate(texts) for word in text.split()) for texts, _ in rows]

    train_counts, counts = counter.fit_transform(words(splits["train"])), counter.transform(words(validation))
    model = Ridge() if task.is_regression else LogisticRegression(max_iter=1000)
    model.fit(train_counts, [label for _, label in splits["train"]])
    labels = np.array([label for _, label in validation])
    reached = score(measure(Task(task.name, (), task.label_names, task.metrics[-1:]), labels, model.predict(counts)))
    assert reached < {"matthews_correlation": 0.2, "pearson": 0.2, "spearman": 0.2}.get(task.metrics[-1], 0.72)


def test_too_many_rows_are_refused_with_the_number_there_is() -> None:
    with pytest.raises(UserError, match="only about"):
        generate(TASKS["wnli"], 100_000, seed=0)
    with pytest.raises(UserError, match="at least 4"):
        generate(TASKS["sst2"], 1, seed=0)
