"""ScaLA against its formula: a slow reference in float64, written from the equations and not from our code."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from components.errors import UserError
from components.train.data import Batch
from components.train.methods import Progress, task_losses
from components.train.methods.plain import Plain
from components.train.methods.scala import Scala, mutual_kl, project, random_noise, symmetric_kl

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
SCALA = Scala(
    perturbation_start=0.0,
    perturbation_init_std=0.01,
    perturbation_step_size=0.1,
    perturbation_radius=0.3,
    perturbation_weight=2.0,
)
PROGRESS = Progress(update=3, num_updates=10, seed=5)


def model(num_labels: int = 3, kind: str = "bert") -> PreTrainedModel:
    torch.manual_seed(0)
    options = {**SIZES, "num_labels": num_labels, "attn_implementation": "sdpa", "pad_token_id": 0}
    if kind == "bert":
        return BertForSequenceClassification(BertConfig(**options)).eval()
    return RobertaForSequenceClassification(RobertaConfig(**options)).eval()


def batch(labels: Tensor | None = None) -> Batch:
    lengths = torch.tensor([9, 4, 6, 2])
    mask = (torch.arange(9) < lengths[:, None]).long()
    ids = torch.randint(4, 50, (4, 9), generator=torch.Generator().manual_seed(1)) * mask
    types = torch.zeros_like(ids)
    return Batch(ids, mask, types, torch.tensor([0, 1, 2, 0]) if labels is None else labels, torch.tensor([11, 7, 3, 0]))


def gradients(network: PreTrainedModel) -> list[Tensor]:
    return [torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for weight in network.parameters()]


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(-1)


@pytest.mark.parametrize("scores", [False, True], ids=["classes", "scores"])
def test_the_loss_and_its_gradient_are_the_formulas(scores: bool) -> None:
    network = model(1 if scores else 3).double()
    data = batch(torch.tensor([0.5, 3.0, 2.0, 4.5]).double() if scores else None)
    SCALA.loss(network, data, PROGRESS).total.backward()
    got = gradients(network)
    value = SCALA.loss(network, data, PROGRESS).total
    network.zero_grad()

    def forward(noise: Tensor) -> Tensor:
        embeddings = network.get_input_embeddings()(data.input_ids)
        return network(inputs_embeds=embeddings + noise, **data.context).logits

    def divergence(z: Tensor, other: Tensor) -> Tensor:
        if scores:
            return ((z - other) ** 2).sum()
        p, q = z.softmax(-1), other.softmax(-1)
        return (kl(p, q) + kl(q, p)).sum()

    clean = forward(torch.zeros(4, 9, 16).double())
    noise = random_noise(data, 16, 0.01, PROGRESS).double().requires_grad_()
    (ascent,) = torch.autograd.grad(divergence(clean.detach(), forward(noise)), noise)
    delta = noise.detach().clone()
    for row in range(4):
        delta[row] += 0.1 * ascent[row] / ascent[row].norm()
        delta[row] *= min(1.0, 0.3 / delta[row].norm().item())
    delta *= data.attention_mask[..., None]
    noisy = forward(delta)
    if scores:
        task, spread = ((clean.squeeze(-1) - data.labels) ** 2).sum(), ((clean - noisy) ** 2).sum()
    else:
        task = -clean.log_softmax(-1)[range(4), data.labels].sum()
        p, q = clean.softmax(-1), noisy.softmax(-1)
        spread = (kl(p.detach(), q) + kl(q.detach(), p)).sum()
    expected = task + 2.0 * spread
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)  # the divergence itself is computed in fp32
    for mine, theirs in zip(got, gradients(network), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_mutual_kl_has_the_value_of_symmetric_kl() -> None:
    z, other = torch.randn(5, 3), torch.randn(5, 3)
    torch.testing.assert_close(mutual_kl(z, other), symmetric_kl(z, other))
    torch.testing.assert_close(
        symmetric_kl(z, other), kl(z.softmax(-1), other.softmax(-1)) + kl(other.softmax(-1), z.softmax(-1))
    )


def test_noise_never_leaves_the_radius_and_is_zero_on_padding() -> None:
    seen: list[Tensor] = []
    network = model()
    network.register_forward_pre_hook(lambda _, __, kwargs: seen.append(kwargs.get("inputs_embeds")), with_kwargs=True)
    data = batch()
    for radius in (0.05, 0.3):
        seen.clear()
        replace(SCALA, perturbation_radius=radius, perturbation_init_std=0.05).loss(network, data, PROGRESS)
        noise = seen[-1].detach() - network.get_input_embeddings()(data.input_ids).detach()
        assert noise.flatten(1).norm(dim=1).max() <= radius * 1.001
        assert noise.flatten(1).norm(dim=1).min() > radius * 0.9
        assert noise[data.attention_mask == 0].abs().max() == 0


def test_projection_leaves_short_noise_alone() -> None:
    noise = torch.randn(3, 4, 5)
    torch.testing.assert_close(project(noise, 1e3), noise)
    torch.testing.assert_close(project(noise, 0.1).flatten(1).norm(dim=1), torch.full((3,), 0.1))
    assert project(torch.zeros(1, 2, 3), 0.1).abs().max() == 0


def test_without_a_random_start_the_ascent_has_no_direction() -> None:
    network, data = model().double(), batch()
    embeddings = network.get_input_embeddings()(data.input_ids).detach()
    clean = network(inputs_embeds=embeddings, **data.context).logits.detach()
    noise = torch.zeros_like(embeddings, requires_grad=True)
    logits = network(inputs_embeds=embeddings + noise, **data.context).logits
    (of_divergence,) = torch.autograd.grad(symmetric_kl(clean, logits).sum(), noise, retain_graph=True)
    (of_label,) = torch.autograd.grad(task_losses(logits, data.labels).sum(), noise)
    assert of_divergence.abs().max() < 1e-9
    assert of_label.abs().max() > 1e-4
    with pytest.raises(UserError, match="perturbation_init_std must be above 0"):
        replace(SCALA, perturbation_init_std=0.0)


def test_before_its_start_it_is_plain_training_to_the_bit() -> None:
    network, data = model(), batch()
    late = replace(SCALA, perturbation_start=0.5)
    late.loss(network, data, Progress(4, 10, 0)).total.backward()
    mine = gradients(network)
    network.zero_grad()
    Plain().loss(network, data, Progress(4, 10, 0)).total.backward()
    assert all(torch.equal(a, b) for a, b in zip(mine, gradients(network), strict=True))
    assert late.loss(network, data, Progress(5, 10, 0)).parts["divergence"] > 0


def test_zero_radius_is_plain_training() -> None:
    network, data = model(), batch()
    loss = replace(SCALA, perturbation_radius=0.0).loss(network, data, PROGRESS)
    torch.testing.assert_close(loss.total, Plain().loss(network, data, PROGRESS).total)
    assert loss.parts["divergence"].item() == pytest.approx(0.0, abs=1e-9)


def test_the_inner_step_leaves_every_gradient_alone() -> None:
    network = model()
    SCALA.loss(network, batch(), PROGRESS)
    assert all(weight.grad is None for weight in network.parameters())


def test_noise_of_an_example_does_not_depend_on_its_neighbours_or_padding() -> None:
    data = batch()
    noise = random_noise(data, 16, 1.0, PROGRESS)
    alone = Batch(data.input_ids[1:2, :4], data.attention_mask[1:2, :4], None, data.labels[1:2], data.rows[1:2])
    torch.testing.assert_close(random_noise(alone, 16, 1.0, PROGRESS)[0], noise[1, :4])
    assert noise[data.attention_mask == 0].abs().max() == 0
    assert not torch.equal(random_noise(data, 16, 1.0, replace(PROGRESS, update=4)), noise)
    assert not torch.equal(random_noise(data, 16, 1.0, replace(PROGRESS, seed=6)), noise)
    assert noise[0].std() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_embeddings_instead_of_tokens_give_the_same_logits(kind: str) -> None:
    network, data = model(kind=kind), batch()
    context = {"attention_mask": data.attention_mask}
    embeddings = network.get_input_embeddings()(data.input_ids)
    torch.testing.assert_close(
        network(input_ids=data.input_ids, **context).logits, network(inputs_embeds=embeddings, **context).logits
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("perturbation_start", 1.1),
        ("perturbation_start", -0.1),
        ("perturbation_radius", -1.0),
        ("perturbation_step_size", -1.0),
        ("perturbation_weight", -1.0),
        ("perturbation_init_std", -1.0),
    ],
)
def test_fields_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=name):
        replace(SCALA, **{name: value})
