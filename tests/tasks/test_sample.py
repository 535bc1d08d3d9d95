"""The generated tasks: complete, the same for a seed, not to be had by counting words, and right but for the stated noise."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from support import ROOT

from components.errors import UserError
from components.evaluate.stage import evaluate
from components.modeling.load import load_tokenizer
from components.tasks import sample
from components.tasks.grammars import inference, pairs, sentences
from components.tasks.grammars.words import DEEDS, NOUNS, PEOPLE, THINGS, TIMES
from components.tasks.metrics import measure, score
from components.tasks.sample import SPREAD, WRONG, Row, generate, named, words
from components.tasks.table import TASKS, UNLABELLED, Task
from components.tokenize.stage import tokenize
from components.train.stage import train

TRAINABLE = [task for task in TASKS.values() if "train" in task.files]
ACTOR, THING, DEED, ACT, BELONGING, PLACE = (
    {name: group for group in groups for name in group.split("|")}
    for groups in (PEOPLE, THINGS, DEEDS, pairs.ACTS, pairs.BELONGINGS, inference.PLACES)
)
KIND = {name: kind for kind, names in inference.KINDS.items() for name in (kind, *names.split())}


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


def test_the_same_seed_gives_the_same_rows_in_any_process_and_another_seed_others() -> None:
    assert generate(TASKS["sst2"], 50, seed=3) != generate(TASKS["sst2"], 50, seed=4)
    code = "from components.tasks.sample import *; from components.tasks.table import TASKS\n"
    code += "print([generate(task, 50, 3) for task in TASKS.values()], words())"
    command = [sys.executable, "-c", code]
    said = {
        subprocess.run(command, env={"PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True, check=True).stdout for seed in "12"
    }
    assert len(said) == 1


def test_no_text_is_in_two_splits() -> None:
    seen = Counter(texts for rows in generate(TASKS["mnli"], 1000, seed=0).values() for texts, _ in rows)
    assert seen.most_common(1)[0][1] == 1


@pytest.mark.parametrize("task", TRAINABLE, ids=lambda task: task.name)
def test_counting_words_is_as_good_as_the_most_frequent_answer(task: Task) -> None:
    counted, usual = np.mean([_rivals(task, generate(task, 1600, seed)) for seed in (0, 1)], axis=0)
    assert abs(counted - usual) <= (0.05 if task.metrics[-1] == "accuracy" else 0.1)  # of a correlation, two standard errors


def _rivals(task: Task, splits: dict[str, list[Row]]) -> tuple[float, float]:
    """Scores on the first validation split of a linear model over the words of each text, and of the most frequent answer."""
    train, validation = splits["train"], next(rows for split, rows in splits.items() if split.startswith("validation"))
    counter = CountVectorizer(token_pattern=r"\S+")

    def counted(rows: list[Row]) -> list[str]:
        return [" ".join(f"{number}{word}" for number, text in enumerate(texts) for word in text.split()) for texts, _ in rows]

    known, expected = (np.array([label for _, label in rows]) for rows in (train, validation))
    model = Ridge() if task.is_regression else LogisticRegression(max_iter=1000)
    model.fit(counter.fit_transform(counted(train)), known)
    guesses = model.predict(counter.transform(counted(validation)))
    usual = known.mean() if task.is_regression else np.bincount(known.astype(int)).argmax()
    return score(measure(task, expected, guesses)), score(measure(task, expected, np.full(len(expected), usual)))


@pytest.mark.parametrize("task", TRAINABLE, ids=lambda task: task.name)
def test_as_many_labels_are_wrong_as_is_said(task: Task) -> None:
    noisy, right = generate(task, 1600, 5), generate(task, 1600, 5, noisy=False)
    for split in noisy:
        assert [texts for texts, _ in noisy[split]] == [texts for texts, _ in right[split]]
        given, true = (np.array([label for _, label in splits[split]]) for splits in (noisy, right))
        if split.startswith("test"):
            assert set(given) == {UNLABELLED}
        elif task.is_regression:
            inside = (true > 0) & (true < 5)
            assert np.std((given - true)[inside]) == pytest.approx(SPREAD, rel=0.2)
            assert f"noise of {SPREAD} " in named(task, 5).generated
        else:
            assert (given != true).sum() == round(WRONG * len(true))
            assert f"{WRONG:.0%} of the labels wrong" in named(task, 5).generated


@pytest.mark.parametrize("task", TRAINABLE, ids=lambda task: task.name)
def test_what_is_measured_goes_beyond_the_training_split(task: Task) -> None:
    splits = generate(task, 1600, 0)
    told = {split: [word for texts, _ in rows for text in texts for word in text.split()] for split, rows in splits.items()}
    for split in splits.keys() - {"train"}:
        new = set(told[split]) - set(told["train"])
        assert len(new) >= 0.1 * len(set(told[split]))
        longest = {name: max(len(" ".join(texts).split()) for texts, _ in splits[name]) for name in (split, "train")}
        assert longest[split] > longest["train"] or task.name == "qqp"


def test_the_tiny_model_knows_every_word() -> None:
    known = set(words())
    for task in TASKS.values():
        rows = (row for rows in generate(task, 1600, 7).values() for row in rows)
        assert {word for texts, _ in rows for text in texts for word in text.split()} <= known
    assert len(load_tokenizer("tiny")) < 800


# --- what the labels say, read from the texts ---


def _sst2(text: str) -> int:
    """Whether the sentence affirms something good."""
    text = text.removesuffix(" .")
    for frame, affirms in sentences.SCOPES:
        if text.startswith(frame.removesuffix("{}")):
            return _sst2(text.removeprefix(frame.removesuffix("{}"))) == affirms
    for pattern in ("(?:although|while) .+? , (.+)", "(.+) , (?:although|even if) .+", ".+? , (?:but|yet in the end) (.+)"):
        if match := re.fullmatch(pattern, text):
            return _sst2(match[1])
    return (text.split()[-1] in sentences.GOOD) != bool(re.search("never|not|anything but|hardly", text))


def _cola(text: str) -> int:
    noun = rf"(?:{'|'.join(NOUNS)})"
    links, degrees, states = ("|".join(words) for words in (sentences.LINKS, sentences.DEGREES, sentences.STATES))
    match = re.fullmatch(rf"the {noun}(s?)(?: (?:{links}) the {noun}s?)* (is|are)(?: (?:{degrees}))? (?:{states}) \.", text)
    return bool(match) and (match[1] == "s") == (match[2] == "are")  # type: ignore[index]


def _event(text: str) -> tuple[str, str, str]:
    """(agent, deed, patient); the former two by all their names."""
    text = re.sub(rf"^(?:{'|'.join(TIMES)}) | (?:{'|'.join(TIMES)})(?= \.)", "", text)
    if match := re.fullmatch(r"the (\w+) was (\w+) by the (\w+) \.", text):
        agent, deed, patient = match[3], match[2], match[1]
    else:
        agent, deed, patient = re.fullmatch(r"the (\w+) (\w+) the (\w+) \.", text).groups()  # type: ignore[union-attr]
    return ACTOR[agent], DEED[deed], patient


def _mrpc(first: str, second: str) -> int:
    return _stsb(first, second) == 5


def _stsb(first: str, second: str) -> float:
    (agent, deed, thing), (again, its_deed, other) = _event(first), _event(second)
    return 2.0 * (agent == again) + (deed == its_deed) + 2.0 * (THING[thing] == THING[other])


def _qqp(first: str, second: str) -> int:
    (act, thing), (again, other) = (re.findall(r"(\w+) (?:a|my) (\w+) \?", text)[0] for text in (first, second))
    return (ACT[act], BELONGING[thing]) == (ACT[again], BELONGING[other])


def _mnli(first: str, second: str) -> int:
    kinds, places = (
        [[names[word] for word in text.split() if word in names] for text in (first, second)] for names in (KIND, PLACE)
    )
    return 1 if kinds[0] != kinds[1] else 2 * (places[0] != places[1])


def _qnli(question: str, answer: str) -> int:
    asks, _, _, thing, deed, _ = question.split()
    _, its_deed, other = _event(
        re.sub(rf" (?:in the (?:{'|'.join(PLACE)})|{'|'.join(TIMES)})(?: for the \w+)?(?= \.)", "", answer)
    )
    assert (THING[thing], DEED[deed]) == (THING[other], its_deed)
    is_place = any(f" in the {place} " in answer for place in PLACE)
    return asks != ("where" if is_place else "when")


def _rte(first: str, second: str) -> int:
    (agent, deed, patient), (same_agent, same_deed, kind) = _event(first), _event(second)
    assert (agent, deed) == (same_agent, same_deed)
    return KIND[patient] != kind


def _wnli(first: str, second: str) -> int:
    meant = inference.WOMEN if " she " in first else inference.MEN
    return bool(set(second.split()) & set(meant))


@pytest.mark.parametrize("read", [_cola, _sst2, _mrpc, _stsb, _qqp, _mnli, _qnli, _rte, _wnli], ids=lambda it: it.__name__)
def test_the_labels_are_what_the_texts_say(read: Callable[..., float]) -> None:
    for split, rows in generate(TASKS[read.__name__[1:]], 1600, 2, noisy=False).items():
        if not split.startswith("test"):
            assert [row for row in rows if read(*row[0]) != row[1]] == []


def test_what_cannot_be_generated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(generate(TASKS["sst2"], 20_000, seed=0)["train"]) == 20_000
    monkeypatch.setitem(sample.GRAMMARS, "sst2", lambda draw: ((draw.word("abcdefghi"),), 1))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="only about 7 rows"):
        generate(TASKS["sst2"], 100, seed=0)
    with pytest.raises(UserError, match="at least 4"):
        generate(TASKS["sst2"], 1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("task", TRAINABLE, ids=lambda task: task.name)
def test_minilm_learns_it_as_far_as_is_said(task: Task, tmp_path: Path) -> None:
    """What `make run` does, of every task."""
    data, model = tmp_path / "data", tmp_path / "model"
    tokenize(task=task.name, source="sample", model="minilm", output_dir=data, num_sample_rows=1600)
    how: dict[str, Any] = {"recipe": "scala", "global_batch_size": 64, "learning_rate": 2e-4, "num_epochs": 3.0}
    train(data_dir=data, model="minilm", output_dir=model, **how)
    evaluate(model_dir=model, data_dir=data, output_dir=tmp_path / "evaluation", robustness_rows=0)
    assert 0.85 <= json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["score"] <= 0.97
