"""Every training method against its formula: slow references in float64, written from the equations and not from our code."""

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from components.errors import UserError
from components.modeling.load import load_tokenizer
from components.training.budget import Progress
from components.training.data import Batch
from components.training.divergences import DIVERGENCES
from components.training.method import Loss
from components.training.methods import METHODS, build_method, fields_of
from components.training.methods.freelb import FreeLB
from components.training.methods.pgd import Pgd
from components.training.methods.plain import Plain
from components.training.methods.rdrop import RDrop
from components.training.methods.scala import Scala
from components.training.methods.smart import Smart
from components.training.noise import normal_noise, uniform_noise
from components.training.objectives import Classification, objective_of

# --- a tiny model, a small batch, and the methods at the values that most tests use ---

LENGTHS = (9, 4, 6, 2)
PROGRESS = Progress(update=3, share=0.3, seed=5)


def fields(**values: Any) -> dict[str, Any]:
    return {f"perturbation_{name}": value for name, value in values.items()}


def variant(method: Any, **values: Any) -> Any:
    """The method with other values: `steps=2` sets perturbation_steps."""
    return replace(method, **fields(**values))


NOISE = fields(steps=1, step_size=0.1, radius=0.3, norm="l2", scope="sequence", dropout="independent")
SMOOTH = NOISE | fields(init_std=0.02, divergence="symmetric_kl", weight=2.0)
PLAIN, RDROP, SMART = Plain(), RDrop(perturbation_weight=2.0), Smart(**SMOOTH)
PGD, FREELB = Pgd(**NOISE, perturbation_init_std=0.02), FreeLB(**NOISE, perturbation_init_norm=0.2)
SCALA = Scala(**SMOOTH, **fields(start=0.0, interval=1, fraction=1.0, direction="divergence"))
BY_LABEL = variant(SCALA, direction="label")


def at(update: int, num_updates: int, seed: int = 0) -> Progress:
    """Before this update of so many."""
    return Progress(update, update / num_updates, seed)


def model(num_labels: int = 3, kind: str = "bert", dropout: float = 0.0, hidden: int = 16) -> PreTrainedModel:
    """In float64; in train mode if it has dropout. Its weights are ten times BERT's, so that noise matters."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=50,
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=40,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.2,
        num_labels=num_labels,
        pad_token_id=0,
    )
    network: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    return network.double().train(dropout > 0)


def batch(scores: bool = False) -> Batch:
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.randint(4, 50, mask.shape, generator=torch.Generator().manual_seed(1)) * mask
    labels = torch.tensor([0.5, 3.0, 2.0, 4.5]).double() if scores else torch.tensor([0, 1, 2, 0])
    return Batch(ids, mask, torch.zeros_like(ids), labels, torch.tensor([11, 7, 3, 0]))


def full_batch(num_rows: int, length: int) -> Batch:
    """Rows 0, 1, ... without padding."""
    ids = torch.randint(4, 50, (num_rows, length), generator=torch.Generator().manual_seed(2))
    return Batch(ids, torch.ones_like(ids), None, torch.arange(num_rows) % 3, torch.arange(num_rows))


def alone(data: Batch, index: int) -> Batch:
    """One example of batch(), without its neighbours and its padding."""
    row, length = slice(index, index + 1), LENGTHS[index]
    ids, mask = data.input_ids[row, :length], data.attention_mask[row, :length]
    return Batch(ids, mask, torch.zeros_like(ids), data.labels[row], data.rows[row])


def gradients(network: PreTrainedModel) -> list[Tensor]:
    return [torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for weight in network.parameters()]


def run(method: Any, network: PreTrainedModel, data: Batch, progress: Progress = PROGRESS) -> tuple[list[Loss], list[Tensor]]:
    """The method's losses, each taken backward before the next, and the gradient that they add up to."""
    network.zero_grad()
    losses = []
    for loss in method.losses(objective_of(data.labels.is_floating_point()), network, data, progress):
        loss.total.backward()
        losses.append(loss)
    return losses, gradients(network)


def value(method: Any, network: PreTrainedModel, data: Batch, progress: Progress = PROGRESS) -> float:
    return math.fsum(loss.total.item() for loss in run(method, network, data, progress)[0])


def assert_close(mine: list[Tensor], theirs: list[Tensor]) -> None:
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@contextmanager
def seen_embeddings(network: PreTrainedModel) -> Iterator[list[Tensor]]:
    """The inputs_embeds of every forward pass."""
    seen: list[Tensor] = []
    hook = network.register_forward_pre_hook(lambda _, __, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True)
    yield seen
    hook.remove()


# --- the references: each method's whole loss, as its formula has it ---


def predict(network: PreTrainedModel, data: Batch, noise: Tensor | float = 0.0) -> Tensor:
    return network(inputs_embeds=network.get_input_embeddings()(data.input_ids) + noise, **data.context).logits


def task(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.is_floating_point():
        return ((logits[:, 0] - labels) ** 2).sum()
    return -logits.softmax(-1)[range(len(labels)), labels].log().sum()


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum()


def divergence(name: str, clean: Tensor, noisy: Tensor, labels: Tensor, ascent: bool = False) -> Tensor:
    """As it stands in the loss, or as the noise climbs it."""
    p, q = clean.softmax(-1), noisy.softmax(-1)
    if name == "label":
        return task(noisy, labels)
    if labels.is_floating_point() or name == "mse":
        return ((clean - noisy) ** 2).mean(-1).sum()
    if name == "js":
        return (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2
    if name == "kl":
        return kl(p.detach(), q)
    return kl(p.detach(), q) + (kl(q, p.detach()) if ascent else kl(q.detach(), p))


def size(values: Tensor, norm: str) -> float:
    return values.abs().max().item() if norm == "linf" else values.square().sum().sqrt().item()


def pieces(method: Any, data: Batch) -> Iterator[tuple[int, slice]]:
    """What a norm is taken over: the real tokens of each example, together or one by one."""
    for row, length in enumerate(data.attention_mask.sum(1).tolist()):
        width = 1 if method.perturbation_scope == "token" else length
        yield from ((row, slice(token, token + width)) for token in range(0, length, width))


def step(method: Any, data: Batch, noise: Tensor, ascent: Tensor) -> Tensor:
    """Proj(d + rho * g / ||g||), and 0 on padding."""
    norm, radius, moved = method.perturbation_norm, method.perturbation_radius, torch.zeros_like(noise)
    for piece in pieces(method, data):
        moved[piece] = noise[piece]
        if size(ascent[piece], norm) > 0:
            moved[piece] += method.perturbation_step_size * ascent[piece] / size(ascent[piece], norm)
        if norm == "linf":
            moved[piece] = moved[piece].clamp(-radius, radius)
        elif size(moved[piece], norm) > radius:
            moved[piece] *= radius / size(moved[piece], norm)
    return moved


def uniform(method: Any, data: Batch) -> Tensor:
    """mag * U(-1, 1), in L2 over the root of how many numbers a sequence has."""
    noise = uniform_noise(data, 16, PROGRESS).double() * method.perturbation_init_norm
    if method.perturbation_norm == "l2":
        for row, length in enumerate(data.attention_mask.sum(1).tolist()):
            noise[row] /= math.sqrt(length * 16)
    return noise


def climb(method: Any, data: Batch, objective: Callable[[Tensor], Tensor]) -> Tensor:
    """K steps from a random start; with step size 0 no pass, only the projection."""
    if getattr(method, "perturbation_init", "normal") == "uniform":
        noise = uniform(method, data)
    else:
        noise = normal_noise(data, 16, method.perturbation_init_std, PROGRESS).double()
    if method.perturbation_step_size == 0:
        return step(method, data, noise, torch.zeros_like(noise))
    for _ in range(method.perturbation_steps):
        here = noise.clone().requires_grad_()
        noise = step(method, data, noise, torch.autograd.grad(objective(here), here)[0])
    return noise


def plain(method: Any, network: PreTrainedModel, data: Batch) -> Tensor:
    return task(predict(network, data), data.labels)


def rdrop(method: Any, network: PreTrainedModel, data: Batch) -> Tensor:
    one, two = predict(network, data), predict(network, data)
    p, q = one.softmax(-1), two.softmax(-1)
    spread = ((one - two) ** 2).sum() if data.labels.is_floating_point() else (kl(p, q) + kl(q, p)) / 2
    return (task(one, data.labels) + task(two, data.labels)) / 2 + method.perturbation_weight * spread


def pgd(method: Any, network: PreTrainedModel, data: Batch) -> Tensor:
    noise = climb(method, data, lambda noise: task(predict(network, data, noise), data.labels))
    return task(predict(network, data, noise), data.labels)


def freelb(method: Any, network: PreTrainedModel, data: Batch) -> Tensor:
    noise = uniform(method, data)
    losses = []
    for _ in range(method.perturbation_steps):
        noise.requires_grad_()
        losses.append(task(predict(network, data, noise), data.labels))
        (ascent,) = torch.autograd.grad(losses[-1], noise, retain_graph=True)
        noise = step(method, data, noise.detach(), ascent)
    return torch.stack(losses).mean()


def smart(method: Any, network: PreTrainedModel, data: Batch) -> Tensor:
    name, labels, clean = method.perturbation_divergence, data.labels, predict(network, data)
    noise = climb(method, data, lambda d: divergence(name, clean.detach(), predict(network, data, d), labels, ascent=True))
    spread = divergence(name, clean, predict(network, data, noise), labels)
    return task(clean, labels) + method.perturbation_weight * spread


def scala(method: Any, network: PreTrainedModel, data: Batch) -> Tensor:
    if PROGRESS.share < method.perturbation_start:
        return plain(method, network, data)
    if method.perturbation_direction == "divergence":
        return smart(method, network, data)
    zero = torch.zeros(*data.input_ids.shape, 16, dtype=torch.float64, requires_grad=True)
    clean = predict(network, data, zero)
    (ascent,) = torch.autograd.grad(task(clean, data.labels), zero, retain_graph=True)
    start = normal_noise(data, 16, method.perturbation_init_std, PROGRESS).double()
    noisy = predict(network, data, step(method, data, start, ascent))
    spread = divergence(method.perturbation_divergence, clean.detach(), noisy, data.labels)
    return task(clean, data.labels) + method.perturbation_weight * spread


REFERENCES = {Plain: plain, RDrop: rdrop, Pgd: pgd, FreeLB: freelb, Smart: smart, Scala: scala}


def assert_formula(method: Any, scores: bool = False, dropout: float = 0.0) -> None:
    network, data = model(1 if scores else 3, dropout=dropout), batch(scores)
    torch.manual_seed(9)
    losses, mine = run(method, network, data)
    network.zero_grad()

    def repeat_dropout(*_: object) -> None:
        torch.manual_seed(9)

    if getattr(method, "perturbation_dropout", "") == "shared":
        network.register_forward_pre_hook(repeat_dropout)
    torch.manual_seed(9)  # the reference runs its passes in the method's order, and so draws the same dropout
    expected = REFERENCES[type(method)](method, network, data)
    expected.backward()
    assert math.fsum(loss.total.item() for loss in losses) == pytest.approx(expected.item(), rel=1e-9)
    assert_close(mine, gradients(network))


# --- the formulas ---

Costs = tuple[int, int, int, int]
CASES: dict[str, tuple[Any, Costs]] = {  # forwards, backwards to the inputs alone, backwards, losses
    "plain": (PLAIN, (1, 0, 1, 1)),
    "rdrop": (RDROP, (2, 0, 2, 1)),
    "pgd of 1 step": (PGD, (2, 1, 1, 1)),
    "pgd of 3 steps": (variant(PGD, steps=3), (4, 3, 1, 1)),
    "pgd of 3 steps from 0": (variant(PGD, steps=3, init_std=0.0), (4, 3, 1, 1)),
    "pgd of 2 steps from a uniform start": (variant(PGD, steps=2, init="uniform", init_norm=0.5), (3, 2, 1, 1)),
    "pgd without projection": (variant(PGD, steps=3, radius=1e9), (4, 3, 1, 1)),
    "freelb of 1 pass": (FREELB, (1, 0, 1, 1)),
    "freelb of 2 passes": (variant(FREELB, steps=2), (2, 0, 2, 2)),
    "freelb of 3 passes": (variant(FREELB, steps=3), (3, 0, 3, 3)),
    "smart": (SMART, (3, 1, 2, 1)),
    "smart of 2 steps": (variant(SMART, steps=2), (4, 2, 2, 1)),
    "scala": (SCALA, (3, 1, 2, 1)),
    "scala of 2 steps": (variant(SCALA, steps=2), (4, 2, 2, 1)),
    "scala before its start": (variant(SCALA, start=0.5), (1, 0, 1, 1)),
    "scala by label": (BY_LABEL, (2, 0, 2, 2)),
    "scala, random noise": (variant(SCALA, step_size=0.0, init_std=0.05), (2, 0, 2, 1)),
    "scala by label, random noise": (variant(BY_LABEL, step_size=0.0, init_std=0.05), (2, 0, 2, 2)),
}
OTHERS = ("pgd of 3 steps", "pgd of 2 steps from a uniform start", "freelb of 3 passes", "smart")
SCALAS = ("scala", "scala of 2 steps", "scala by label", "scala, random noise")
with_norms = pytest.mark.parametrize(("norm", "scope"), list(itertools.product(("l2", "linf"), ("sequence", "token"))))


@pytest.mark.parametrize("scores", [False, True], ids=["classes", "scores"])
@pytest.mark.parametrize("dropout", ["none", "independent", "shared"])
@pytest.mark.parametrize("case", CASES)
def test_a_method_is_its_formula(case: str, dropout: str, scores: bool) -> None:
    method = CASES[case][0]
    if dropout == "shared" and hasattr(method, "perturbation_dropout"):
        method = variant(method, dropout=dropout)
    assert_formula(method, scores, 0.0 if dropout == "none" else 0.3)


@pytest.mark.parametrize("radius", [0.05, 10.0])
@with_norms
@pytest.mark.parametrize("case", OTHERS)
def test_a_method_is_its_formula_in_every_norm(case: str, norm: str, scope: str, radius: float) -> None:
    assert_formula(variant(CASES[case][0], norm=norm, scope=scope, radius=radius))


@pytest.mark.parametrize("radius", [0.05, 10.0])
@pytest.mark.parametrize("name", ["symmetric_kl", "kl", "js", "mse", "label"])
@with_norms
@pytest.mark.parametrize("case", SCALAS)
def test_scala_is_its_formula(case: str, norm: str, scope: str, name: str, radius: float) -> None:
    assert_formula(variant(CASES[case][0], norm=norm, scope=scope, divergence=name, radius=radius))


# --- what the formulas imply ---


@pytest.mark.parametrize("name", ["kl", "symmetric_kl", "js", "mse"])
def test_without_noise_a_divergence_has_no_direction_but_the_label_has(name: str) -> None:
    network, data = model(), batch()
    noise = torch.zeros(4, 9, 16, dtype=torch.float64, requires_grad=True)
    logits = predict(network, data, noise)
    values = DIVERGENCES[name](predict(network, data).detach(), logits)
    assert values.shape == (4,)
    (of_divergence,) = torch.autograd.grad(values.sum(), noise, retain_graph=True)
    (of_label,) = torch.autograd.grad(task(logits, data.labels), noise)
    assert of_divergence.abs().max() < 1e-12
    assert of_label.abs().max() > 1e-3
    for method in (SMART, SCALA):
        with pytest.raises(UserError, match="perturbation_init_std"):
            variant(method, init_std=0.0, divergence=name)
        variant(method, init_std=0.0, divergence="label")
        variant(method, init_std=0.0, step_size=0.0)
    variant(BY_LABEL, init_std=0.0, divergence=name)


@with_norms
@pytest.mark.parametrize("case", OTHERS + SCALAS)
def test_noise_stays_in_its_radius_and_off_the_padding(case: str, norm: str, scope: str) -> None:
    network, data = model(), batch()
    for radius in (0.01, 0.03):
        method = variant(CASES[case][0], norm=norm, scope=scope, radius=radius)
        with seen_embeddings(network) as seen:
            run(method, network, data)
        noise = (seen[-1] - network.get_input_embeddings()(data.input_ids)).detach()
        sizes = [size(noise[piece], norm) for piece in pieces(method, data)]
        assert max(sizes) <= radius * (1 + 1e-9)
        assert min(sizes) > radius * 0.99  # a step, or the random noise, is longer than the radius
        assert noise[data.attention_mask == 0].abs().max() == 0


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_embeddings_instead_of_tokens_give_the_same_logits(kind: str) -> None:
    network, data = model(kind=kind), batch()
    context = {"attention_mask": data.attention_mask}
    by_embeddings = network(inputs_embeds=network.get_input_embeddings()(data.input_ids), **context).logits
    assert_close([network(input_ids=data.input_ids, **context).logits], [by_embeddings])


def test_roberta_padded_on_the_left_would_see_other_positions(tmp_path: Path) -> None:
    network, data = model(kind="roberta"), batch()
    ids, context = data.input_ids.flip(1), {"attention_mask": data.attention_mask.flip(1)}
    by_embeddings = network(inputs_embeds=network.get_input_embeddings()(ids), **context).logits
    assert (network(input_ids=ids, **context).logits - by_embeddings).abs().max() > 1e-3

    tokenizer = load_tokenizer("tiny")
    tokenizer.padding_side = "left"
    tokenizer(["a", "a a a"], padding=True)  # which writes the side to tokenizer.json
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == "left"
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.padding_side == "right"
    assert loaded(["a", "a a a"], padding=True)["attention_mask"][0] == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_before_its_start_scala_is_plain_training_to_the_bit(dropout: float) -> None:
    network, results = model(dropout=dropout).float(), []
    for method in (variant(SCALA, start=0.5), PLAIN):
        torch.manual_seed(9)
        results.append(run(method, network, batch(), at(4, 10)))
    (mine, my_gradients), (theirs, their_gradients) = results
    assert torch.equal(mine[0].total, theirs[0].total)
    assert all(torch.equal(a, b) for a, b in zip(my_gradients, their_gradients, strict=True))


NO_NOISE = {
    "scala, random noise of 0": variant(SCALA, step_size=0.0, init_std=0.0),
    "scala in radius 0": variant(SCALA, radius=0.0),
    "scala by label in radius 0": variant(BY_LABEL, radius=0.0),
    "freelb's first pass from 0": variant(FREELB, init_norm=0.0),
}


@pytest.mark.parametrize("method", NO_NOISE.values(), ids=NO_NOISE)
def test_a_method_without_noise_is_plain_training(method: Any) -> None:
    network, data = model(), batch()
    losses, mine = run(method, network, data)
    clean = value(PLAIN, network, data)
    assert losses[0].total.item() == pytest.approx(clean, rel=1e-12)
    assert_close(mine, gradients(network))
    if method.part_names:
        assert losses[0].parts["task_loss"].item() == pytest.approx(clean, rel=1e-12)
        assert losses[-1].parts["divergence"].item() == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("method", [variant(PGD, steps=2), SMART, variant(SCALA, steps=2)], ids=["pgd", "smart", "scala"])
def test_the_inner_steps_leave_every_gradient_alone(method: Any) -> None:
    network = model()
    next(iter(method.losses(Classification(), network, batch(), PROGRESS)))
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.parametrize("base", [SMART, SCALA, BY_LABEL], ids=["smart", "scala", "scala by label"])
def test_shared_dropout_leaves_no_divergence_but_that_of_the_noise(base: Any) -> None:
    network, spread = model(dropout=0.3), {}
    for kind in ("shared", "independent"):
        losses, _ = run(variant(base, radius=0.0, dropout=kind), network, batch())
        spread[kind] = losses[-1].parts["divergence"].item()
    assert spread["shared"] == pytest.approx(0.0, abs=1e-14)
    assert spread["independent"] > 1e-3


def test_freelb_with_shared_dropout_and_no_noise_repeats_one_loss() -> None:
    network, still = model(dropout=0.3), variant(FREELB, steps=3, init_norm=0.0, step_size=0.0)
    for kind, num_different in (("shared", 1), ("independent", 3)):
        losses, _ = run(variant(still, dropout=kind), network, batch())
        assert len({loss.total.item() for loss in losses}) == num_different


# --- random numbers ---


def normal_half(data: Batch, hidden: int, progress: Progress) -> Tensor:
    return normal_noise(data, hidden, 0.5, progress)


LAWS = {normal_half: stats.norm(0, 0.5), uniform_noise: stats.uniform(-1, 2)}
with_draws = pytest.mark.parametrize("draw", LAWS, ids=["normal", "uniform"])


@with_draws
def test_noise_of_an_example_is_its_own(draw: Any) -> None:
    data = batch()
    noise = draw(data, 15, PROGRESS)
    assert noise.shape == (4, 9, 15)
    assert noise.dtype == torch.float32
    assert noise[data.attention_mask == 0].abs().max() == 0
    for index, length in enumerate(LENGTHS):
        assert torch.equal(draw(alone(data, index), 15, PROGRESS)[0], noise[index, :length])
    assert torch.equal(draw(data.take(torch.tensor([2, 0])), 15, PROGRESS), noise[[2, 0]])
    assert not torch.isclose(noise[0, :2], noise[3, :2]).any()
    for other in (replace(PROGRESS, update=4), replace(PROGRESS, seed=6)):
        assert not torch.isclose(draw(data, 15, other)[0], noise[0]).any()


@with_draws
def test_noise_has_its_distribution(draw: Any) -> None:
    noise, law = draw(full_batch(125, 10), 80, PROGRESS).flatten().double().numpy(), LAWS[draw]
    assert noise.mean() == pytest.approx(0.0, abs=4 * law.std() / math.sqrt(len(noise)))
    assert noise.std() == pytest.approx(law.std(), rel=0.01)
    assert stats.kstest(noise, law.cdf).pvalue > 0.01


@with_draws
def test_neighbouring_numbers_of_the_noise_are_uncorrelated(draw: Any) -> None:
    data = full_batch(125, 10)
    noise = draw(data, 80, PROGRESS)
    pairs = {
        "rows": (noise[1:], noise[:-1]),
        "tokens": (noise[:, 1:], noise[:, :-1]),
        "dimensions": (noise[..., 1:], noise[..., :-1]),
        "halves": (noise[..., :40], noise[..., 40:]),
        "updates": (noise, draw(data, 80, replace(PROGRESS, update=4))),
        "seeds": (noise, draw(data, 80, replace(PROGRESS, seed=6))),
    }
    for name, (one, other) in pairs.items():
        for a, b in ((one, other), (one.abs(), other.abs())):
            correlation = torch.corrcoef(torch.stack((a.flatten(), b.flatten())).double())[0, 1].item()
            assert abs(correlation) < 4.5 / math.sqrt(one.numel()), name


# --- when, and on which examples ---

with_directions = pytest.mark.parametrize("method", [SCALA, BY_LABEL], ids=["divergence", "label"])


@with_directions
def test_a_fraction_of_the_examples_does_not_depend_on_the_micro_batch(method: Any) -> None:
    network, data, part = model(), batch(), variant(method, fraction=0.5)
    together, expected = value(part, network, data), gradients(network)
    sums, num_chosen = [torch.zeros_like(weight) for weight in network.parameters()], 0
    values = []
    for index in range(4):
        single = alone(data, index)
        values.append(value(part, network, single))
        sums = [done + new for done, new in zip(sums, gradients(network), strict=True)]
        clean, noisy = value(PLAIN, network, single), value(method, network, single)
        if abs(values[-1] - clean) > 1e-9:
            num_chosen += 1
            assert values[-1] - clean == pytest.approx(2 * (noisy - clean), rel=1e-9)  # lambda / c
    assert 0 < num_chosen < 4
    assert math.fsum(values) == pytest.approx(together, rel=1e-9)
    assert_close(sums, expected)


@with_directions
def test_a_fraction_chooses_about_that_share_of_the_examples(method: Any) -> None:
    network = model()
    with seen_embeddings(network) as seen:
        run(variant(method, fraction=0.25), network, full_batch(2000, 3))
    assert len(seen[-1]) == pytest.approx(500, abs=80)


@with_directions
def test_over_many_updates_a_fraction_has_the_loss_of_all_examples(method: Any) -> None:
    network, data, part = model(), full_batch(16, 3), variant(method, fraction=0.4)
    clean, updates = value(PLAIN, network, data), [at(update, 60) for update in range(60)]
    of_all = math.fsum(value(method, network, data, progress) - clean for progress in updates)
    assert of_all > 1
    assert math.fsum(value(part, network, data, progress) - clean for progress in updates) == pytest.approx(of_all, rel=0.1)


@with_directions
def test_a_micro_batch_without_a_chosen_example_adds_zero_by_the_same_passes(method: Any) -> None:
    network, data, part = model(), alone(batch(), 0), variant(method, fraction=0.5)
    clean, theirs = value(PLAIN, network, data), gradients(network)
    num_empty = 0
    for update in range(10):
        progress = at(update, 10, seed=5)
        with seen_embeddings(network) as seen:
            losses, mine = run(part, network, data, progress)
        assert len(losses) == part.passes(progress).num_losses
        assert len(seen) == method.passes(progress).forwards  # whatever was chosen: under DDP no rank waits for another
        if abs(math.fsum(loss.total.item() for loss in losses) - clean) < 1e-9:
            num_empty += 1
            assert losses[-1].parts["divergence"].item() == 0
            assert_close(mine, theirs)
    assert 0 < num_empty < 10


WHEN = [
    (0.5, 2, 10, [6, 8]),
    (0.5, 1, 10, [5, 6, 7, 8, 9]),
    (0.0, 3, 10, [0, 3, 6, 9]),
    (0.45, 1, 10, [5, 6, 7, 8, 9]),
    (0.07, 7, 100, list(range(7, 100, 7))),  # 0.07 * 100 is a little above 7
    (1.0, 1, 10, []),
]


@pytest.mark.parametrize(("start", "interval", "num_updates", "expected"), WHEN)
def test_start_and_interval_say_which_updates_are_noisy(
    start: float, interval: int, num_updates: int, expected: list[int]
) -> None:
    network, data, method = model(), batch(), variant(SCALA, start=start, interval=interval)
    clean, noisy = value(PLAIN, network, data), []
    for update in range(num_updates):
        progress = at(update, num_updates)
        is_noisy = abs(value(method, network, data, progress) - clean) > 1e-9
        assert method.passes(progress) == (SCALA if is_noisy else PLAIN).passes(progress)
        noisy += [update] * is_noisy
    assert noisy == expected


# --- cost ---


@pytest.mark.parametrize("case", CASES)
def test_passes_are_those_that_are_run(case: str) -> None:
    method, costs = CASES[case]
    network, data, passes = model(hidden=64), full_batch(4, 8), method.passes(PROGRESS)
    assert (passes.forwards, passes.input_backwards, passes.backwards, passes.num_losses) == costs
    assert passes.relative == pytest.approx((costs[0] + costs[1] + 2 * costs[2]) / 3)

    def flops(method: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            run(method, network, data)
        return counter.get_total_flops()

    unit, calls = flops(PLAIN), []
    network.register_forward_hook(lambda *_: calls.append(1))
    assert flops(method) / unit == pytest.approx(passes.relative, rel=0.03)
    assert len(calls) == passes.forwards
    assert len(run(method, network, data)[0]) == passes.num_losses


# --- defaults ---

AROUND_SEQUENCES = fields(norm="l2", scope="sequence", dropout="independent")
CARDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rdrop": fields(weight=1.0),
    "pgd": AROUND_SEQUENCES | fields(steps=2, init="normal", init_std=0.001, init_norm=0.1, step_size=0.1, radius=0.3),
    "freelb": fields(norm="l2", scope="sequence", dropout="shared", steps=3, init_norm=0.1, step_size=0.1, radius=0.3),
    "smart": fields(norm="linf", scope="token", dropout="independent", divergence="symmetric_kl", weight=1.0)
    | fields(steps=1, init_std=1e-5, step_size=1e-3, radius=1e-5),
    "scala": AROUND_SEQUENCES
    | fields(start=0.5, steps=1, init_std=0.001, step_size=0.1, radius=0.3, divergence="symmetric_kl", weight=1.0)
    | fields(direction="divergence", interval=1, fraction=1.0),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_defaults_are_those_of_its_card(name: str) -> None:
    method = build_method(name, dict.fromkeys(fields_of(name)) | {"seed": 3})  # what is None is not given
    assert method == METHODS[name]()
    assert vars(method) == CARDS[name]
    card = sys.modules[METHODS[name].__module__].__doc__ or ""
    assert all(field in card for field in fields_of(name))


@pytest.mark.parametrize("name", METHODS)
def test_by_its_defaults_a_method_is_its_formula(name: str) -> None:
    method = METHODS[name]()
    assert_formula(variant(method, start=PROGRESS.share) if name == "scala" else method, dropout=0.3)


@pytest.mark.parametrize("name", ["pgd", "freelb", "smart", "scala"])
def test_by_its_defaults_a_methods_noise_climbs(name: str) -> None:
    network, data, progress = model(), batch(), at(5, 10)
    method = METHODS[name]()
    with seen_embeddings(network) as seen:
        run(method, network, data, progress)
    noises = [(each - network.get_input_embeddings()(data.input_ids)).detach() for each in seen]
    assert len(noises) == method.passes(progress).forwards >= 3
    for one, other in itertools.pairwise(noises):
        assert not torch.equal(one, other)
    ends = [[size(noise[piece], method.perturbation_norm) for piece in pieces(method, data)] for noise in noises]  # type: ignore[attr-defined]
    assert min(ends[-1]) > 0
    assert max(ends[-1]) <= method.perturbation_radius * (1 + 1e-6)  # type: ignore[attr-defined]
    losses = [task(predict(network, data, noise), data.labels).item() for noise in noises]
    if name in ("pgd", "freelb"):
        assert losses == sorted(losses)
    else:  # what they climb is the distance from the clean prediction, the first
        clean, *noisy = (predict(network, data, noise) for noise in noises)
        climbed = [divergence("symmetric_kl", clean, each, data.labels).item() for each in noisy]
        assert 0 < climbed[0] < climbed[1]


# --- what is refused ---

WITH_NOISE = (PGD, FREELB, SMART, SCALA)
REFUSED: list[tuple[tuple[Any, ...], str, tuple[Any, ...]]] = [
    ((SCALA,), "start", (-0.1, 1.1, math.nan)),
    ((SCALA,), "interval", (0, -1)),
    ((SCALA,), "fraction", (0.0, -0.5, 1.1, math.nan)),
    ((SCALA,), "direction", ("up",)),
    ((BY_LABEL,), "steps", (2,)),
    ((variant(SCALA, fraction=0.5),), "dropout", ("shared",)),
    ((RDROP, SMART, SCALA), "weight", (-1.0, math.nan)),
    ((SMART, SCALA), "divergence", ("hellinger",)),
    ((PGD, SMART, SCALA), "init_std", (-0.1, math.nan)),
    ((FREELB,), "init_norm", (-0.1, math.nan)),
    (WITH_NOISE, "steps", (0, -1)),
    (WITH_NOISE, "step_size", (-0.1, math.nan)),
    (WITH_NOISE, "radius", (-0.1, math.nan)),
    (WITH_NOISE, "norm", ("l1",)),
    (WITH_NOISE, "scope", ("batch",)),
    (WITH_NOISE, "dropout", ("none",)),
]


@pytest.mark.parametrize(("methods", "name", "values"), REFUSED, ids=[name for _, name, _ in REFUSED])
def test_fields_out_of_range_are_refused(methods: tuple[Any, ...], name: str, values: tuple[Any, ...]) -> None:
    for method, tried in itertools.product(methods, values):
        with pytest.raises(UserError, match=f"perturbation_{name}"):
            variant(method, **{name: tried})
