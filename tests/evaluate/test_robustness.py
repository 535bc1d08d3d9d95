"""Noise is as long as it says, the same every time, and hurts more the longer it is."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from components.evaluate import robustness as under_test
from components.evaluate.robustness import RADII, in_capitals, robustness, with_odd_spaces, with_typos
from components.modeling.load import load_tokenizer
from components.modeling.packed import pack
from components.tasks.table import Task
from components.training.data import Split, read_split

Setting = tuple[Any, Split, Any, Task]


@pytest.fixture
def setting(tokenized: Callable[[str], Path], trained: Callable[[str], Path]) -> Callable[[str], Setting]:
    def make(task: str) -> Setting:
        model = AutoModelForSequenceClassification.from_pretrained(trained(task)).eval()
        pack(model)
        tokenizer = load_tokenizer(str(trained(task)))
        return model, read_split(tokenized(task), "validation"), tokenizer, Task.read(tokenized(task))

    return make


@pytest.mark.parametrize("task", ["sst2", "rte", "stsb"])
def test_every_noise_has_its_score_and_the_same_one_again(setting: Callable[[str], Setting], task: str) -> None:
    found = robustness(*setting(task))
    kinds = [f"{kind} {radius}" for kind in ("random", "adversarial") for radius in RADII]
    assert list(found) == ["clean", *kinds, "typos", "capitals", "odd spaces"]
    assert found == robustness(*setting(task))
    assert found["odd spaces"] == found["clean"]  # BERT's tokenizer takes no notice


def test_adversarial_noise_raises_the_loss_and_random_noise_less(setting: Callable[[str], Setting]) -> None:
    model, rows, tokenizer, task = setting("sst2")
    outputs = under_test._under_embedding_noise(model, rows, tokenizer.pad_token_id, task)

    def loss(name: str) -> float:
        return torch.nn.functional.cross_entropy(torch.from_numpy(outputs[name]), rows.labels).item()

    losses = [loss("clean"), *(loss(f"adversarial {radius}") for radius in RADII)]
    assert losses == sorted(losses)
    for radius in RADII:
        assert loss(f"adversarial {radius}") > loss(f"random {radius}")


def test_noise_on_the_embeddings_is_as_long_as_it_says(setting: Callable[[str], Setting]) -> None:
    model, rows, _, _ = setting("sst2")
    batch = rows.batch(torch.tensor([0, 3, 5]), 0, torch.device("cpu"), packed=True)
    embeddings = model.get_input_embeddings()(batch.input_ids).detach()
    direction = torch.randn_like(embeddings) * batch.attention_mask[..., None]
    direction[1] = 0.0
    noise = under_test._of_length(direction, 0.25, embeddings, batch)
    lengths = noise.norm(dim=(1, 2)) / (embeddings * batch.attention_mask[..., None]).norm(dim=(1, 2))
    assert lengths.tolist() == pytest.approx([0.25, 0.0, 0.25], rel=1e-5)


def test_noise_in_a_text_keeps_its_letters() -> None:
    text = "the performances are anything but dull and the direction is wonderful"
    drawn = random.Random(0)
    noisy = [with_typos(text, drawn) for _ in range(30)]
    assert any(each != text for each in noisy)
    assert all(sorted(each) == sorted(text) for each in noisy)
    assert all(each.split()[0] == "the" for each in noisy)  # short words stay
    assert in_capitals(text, drawn) == text.upper()
    assert with_odd_spaces(text, drawn).split() == text.split()
    assert [noise("", drawn).strip() for noise in (with_typos, in_capitals, with_odd_spaces)] == [""] * 3
