"""Packed batches give the padded model's losses and gradients."""

from typing import Any

import pytest
import torch
from networks import batch, model
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification

from components.modeling import attention, packing
from components.modeling.abilities import PACKABLE
from components.modeling.packed import is_packed, pack
from components.modeling.packing import run_sizes
from components.training import data
from components.training.data import Batch

LENGTHS = ([7, 7, 4, 1], [5, 5], [1], [80, 75, 30, 29, 12, 3, 3], [3, 60, 12, 40])


def gradients(network: Any, examples: Batch, noise: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Logits; gradients by parameter, the noise's as `noise`."""
    noise = noise.clone().requires_grad_()
    network.zero_grad()
    logits = network(inputs_embeds=network.get_input_embeddings()(examples.input_ids) + noise, **examples.context).logits
    torch.nn.functional.cross_entropy(logits, examples.labels, reduction="sum").backward()
    assert noise.grad is not None
    return logits, {"noise": noise.grad} | {name: weight.grad for name, weight in network.named_parameters()}


@pytest.fixture(params=[False, True], ids=["as they are", "filled up"])
def filled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether rows that nobody reads fill a batch up, as they do with 16-bit arithmetic on a CPU."""
    if request.param:
        for module in (data, packing, attention):
            monkeypatch.setattr(module, "filled", lambda number, multiple, device: -(-number // 16) * 16)
    return bool(request.param)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("family", PACKABLE)
def test_logits_and_gradients_are_those_of_the_padded_model(family: str, lengths: list[int], filled: bool) -> None:
    padded, packed = model(family), model(family)
    pack(packed)
    assert is_packed(packed)
    assert not is_packed(padded)
    noise = torch.randn(len(lengths), max(lengths), 16, dtype=torch.float64) * 0.1
    logits, wanted = gradients(padded, batch(lengths, False), noise)
    got_logits, got = gradients(packed, batch(lengths, True), noise)
    torch.testing.assert_close(got_logits, logits, rtol=1e-12, atol=1e-14)
    assert wanted.keys() == got.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_attention_with_dropout_is_the_same_where_nothing_drops(
    monkeypatch: pytest.MonkeyPatch, lengths: list[int], filled: bool
) -> None:
    """CPUs have a path of their own with dropout."""
    dropped: list[float] = []

    def keep(states: Tensor, probability: float) -> Tensor:
        dropped.append(probability)
        return states

    monkeypatch.setattr(attention, "drop", keep)
    padded, packed = model("bert"), model("bert", attention_dropout=0.25)
    pack(packed)
    noise = torch.randn(len(lengths), max(lengths), 16, dtype=torch.float64) * 0.1
    logits, wanted = gradients(padded, batch(lengths, False), noise)
    got_logits, got = gradients(packed, batch(lengths, True), noise)
    assert dropped == [0.25] * 3 * len(run_sizes(lengths))
    torch.testing.assert_close(got_logits, logits, rtol=1e-12, atol=1e-14)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([5], [1]),
        ([7, 7, 4, 1], [4]),  # little is spared
        ([80, 75, 30, 29, 12, 3, 3], [2, 2, 3]),
        ([40, 39, *[20] * 20, *[8] * 20], [2, 20, 20]),
        ([20, 80, 10, 10], [4]),  # not sorted: one run, as wide as the longest
        ([80, 20, 60, 10], [4]),
    ],
)
def test_examples_of_like_lengths_attend_together(lengths: list[int], sizes: list[int]) -> None:
    assert run_sizes(lengths) == sizes


def test_a_part_of_a_packed_batch_is_packed() -> None:
    network = model("bert")
    pack(network)
    whole = batch([7, 7, 4, 1], True)
    part = whole.take(torch.tensor([2, 0]))
    logits = network(input_ids=whole.input_ids, **whole.context).logits
    torch.testing.assert_close(network(input_ids=part.input_ids, **part.context).logits, logits[[2, 0]], rtol=1e-12, atol=0.0)


def test_the_encoder_sees_no_padding_and_the_last_feed_forward_first_tokens_alone() -> None:
    network, seen = model("bert"), []
    pack(network)
    for layer in network.bert.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, args, output: seen.append(args[0].shape))
    examples = batch([7, 7, 4, 1], True)
    network(input_ids=examples.input_ids, **examples.context)
    assert seen == [(1, 19, 16), (1, 19, 16), (1, 4, 16)]


def test_a_model_of_another_build_is_left_alone() -> None:
    config = AutoConfig.for_model("distilbert", vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=24)
    network = AutoModelForSequenceClassification.from_config(config)
    pack(network)
    assert not is_packed(network)
    network(**{"input_ids": batch([3], False).input_ids, **batch([3], False).context})


def test_a_packed_model_refuses_a_batch_without_lengths() -> None:
    network = model("bert")
    pack(network)
    examples = batch([3, 2], False)
    with pytest.raises(KeyError, match="packing"):
        network(input_ids=examples.input_ids, **examples.context)


def test_what_is_saved_is_an_ordinary_model(tmp_path: Any) -> None:
    network = model("roberta")
    pack(network)
    network.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype="float64").train()
    one, other = batch([7, 3], True), batch([7, 3], False)
    got = loaded(input_ids=other.input_ids, **other.context).logits
    torch.testing.assert_close(got, network(input_ids=one.input_ids, **one.context).logits, rtol=1e-12, atol=1e-14)


def test_with_16_bits_on_a_cpu_few_shapes_are_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """What oneDNN has a kernel for, it keeps. In one run or several, of one length or of many."""
    packed = model("bert", attention_dropout=0.1).float()
    pack(packed)
    linear: set[int] = set()
    attended: set[tuple[int, int]] = set()
    for module in packed.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda module, given: linear.add(given[0].numel() // given[0].shape[-1]))
    real = torch.matmul

    def matmul(one: Tensor, other: Tensor) -> Tensor:
        attended.add((one.shape[0], one.shape[2]))
        return real(one, other)

    monkeypatch.setattr(torch, "matmul", matmul)
    drawn = torch.Generator().manual_seed(0)
    every = [torch.randint(1, 25, (int(n),), generator=drawn).sort(descending=True).values.tolist() for n in range(9, 69)]
    every += [[13] * 11, [16] * 9, [9, 8, 7], [8]]
    for precision, few in ((torch.float32, False), (torch.bfloat16, True)):
        linear.clear()
        attended.clear()
        for lengths in every:
            examples = batch(lengths, True)
            with torch.autocast("cpu", precision, enabled=few):
                packed(input_ids=examples.input_ids, **examples.context)
        assert all(number % packing.READ == 0 for number in linear) == few
        assert all(batch % packing.EXAMPLES == 0 == width % packing.WIDTH for batch, width in attended) == few
        assert (len(linear) < 12, len(attended) < 25) == (few, few)
