"""Every optimizer against its formula for 20 updates: slow references in float64, one tensor at a time, straight from the
papers, with NumPy.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from components.training.optimizers import build_optimizer, groups_of, take_average
from components.training.optimizers.muon import orthogonalized
from components.training.optimizers.sophia import Sophia

Array = NDArray[np.float64]
RATE, DECAY, NUM_UPDATES = 0.03, 0.2, 20


class Network(torch.nn.Module):
    """A table, two matrices of layers, one of them tall, a vector, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.base_model = torch.nn.ModuleDict(
            {"table": torch.nn.Embedding(7, 4), "one": torch.nn.Linear(4, 4), "two": torch.nn.Linear(4, 6, bias=False)}
        )
        self.head = torch.nn.Linear(6, 6)


def network() -> Network:
    torch.manual_seed(0)
    return Network().double()


def gradients(model: torch.nn.Module) -> Iterator[dict[str, Array]]:
    """Of each update; every third one is ten times as large."""
    generator = np.random.default_rng(1)
    for update in range(NUM_UPDATES):
        scale = 10.0 if update % 3 == 0 else 1.0
        yield {name: scale * generator.normal(size=tuple(it.shape)) for name, it in model.named_parameters()}


def group_of(model: torch.nn.Module) -> dict[str, str]:
    """Parameter -> its group."""
    known = {id(weight): group for group, weights in groups_of(model).items() for weight in weights}
    return {name: known[id(weight)] for name, weight in model.named_parameters()}


def adam(w: Array, grads: list[Array], decay: float, beta1: float, beta2: float, eps: float = 1e-8) -> Array:
    m = v = np.zeros_like(w)
    for t, g in enumerate(grads, 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - RATE * (m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps) + decay * w)
    return w


def adamw(w: Array, grads: list[Array], decay: float, group: str) -> Array:
    return adam(w, grads, decay, 0.9, 0.999)


def lion(w: Array, grads: list[Array], decay: float, group: str) -> Array:
    m = np.zeros_like(w)
    for g in grads:
        w = w - RATE * (np.sign(0.9 * m + 0.1 * g) + decay * w)
        m = 0.99 * m + 0.01 * g
    return w


def sophia(w: Array, grads: list[Array], decay: float, group: str) -> Array:
    """Every fourth update, from the first on, has an estimate: the next gradient in the list, of 32 loss terms."""
    m = h = np.zeros_like(w)
    for update, g in enumerate(grads):
        if update % 4 == 0:
            h = 0.99 * h + 0.01 * 32 * grads[(update + 1) % len(grads)] ** 2
        m = 0.965 * m + 0.035 * g
        w = w - RATE * decay * w
        w = w - RATE * np.sign(m) * np.minimum(np.abs(m) / np.maximum(0.5 * h, 1e-12), 1)
    return w


def muon(w: Array, grads: list[Array], decay: float, group: str) -> Array:
    if group != "layers":
        return adam(w, grads, decay, 0.9, 0.999)
    m = np.zeros_like(w)
    for g in grads:
        m = 0.95 * m + 0.05 * g
        u, s, vt = np.linalg.svd(0.95 * m + 0.05 * g, full_matrices=False)
        s = s / np.linalg.norm(s)
        for _ in range(5):  # an odd polynomial of a matrix is the polynomial of its singular values
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        w = w - RATE * decay * w - RATE * 0.2 * np.sqrt(max(w.shape)) * (u * s) @ vt
    return w


def soap(w: Array, grads: list[Array], decay: float, group: str) -> Array:
    if group not in ("layers", "head"):
        return adam(w, grads, decay, 0.95, 0.95)
    g = grads[0]
    left, right = 0.05 * g @ g.T, 0.05 * g.T @ g
    ql, qr = np.linalg.eigh(left)[1][:, ::-1], np.linalg.eigh(right)[1][:, ::-1]
    m = v = np.zeros_like(w)
    for t, g in enumerate(grads[1:], 1):
        m, v = 0.95 * m + 0.05 * g, 0.95 * v + 0.05 * (ql.T @ g @ qr) ** 2
        inside = (ql.T @ m @ qr) / (1 - 0.95**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
        w = w - RATE * (ql @ inside @ qr.T + decay * w)
        left, right = 0.95 * left + 0.05 * g @ g.T, 0.95 * right + 0.05 * g.T @ g
        if t % 10 == 0:
            rows, columns = (np.argsort(-np.diag(q.T @ p @ q)) for p, q in ((left, ql), (right, qr)))
            v = v[rows][:, columns]
            ql, qr = np.linalg.qr(left @ ql[:, rows])[0], np.linalg.qr(right @ qr[:, columns])[0]
    return w


def schedule_free(w: Array, grads: list[Array], decay: float, group: str) -> Array:
    """The average x, which is what is saved. The gradients do not depend on the weights here, but the decay does, on y."""
    x = z = w
    v = np.zeros_like(w)
    squares = 0.0
    for t, g in enumerate(grads, 1):
        rate = rate_of(t - 1)
        y = 0.1 * z + 0.9 * x
        v = 0.999 * v + 0.001 * g**2
        z = z - rate * (g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + decay * y)
        squares += rate**2
        x = (1 - rate**2 / squares) * x + rate**2 / squares * z
    return x


def rate_of(update: int) -> float:
    """Of schedule-free: it rises over five updates."""
    return RATE * min(1.0, (update + 1) / 5)


REFERENCES: dict[str, Callable[[Array, list[Array], float, str], Array]] = {
    "adamw": adamw, "lion": lion, "sophia": sophia, "muon": muon, "soap": soap, "schedule-free": schedule_free,
}  # fmt: skip


def set_gradients(model: torch.nn.Module, of: dict[str, Array]) -> None:
    for name, weight in model.named_parameters():
        weight.grad = torch.from_numpy(of[name].copy())


@pytest.mark.parametrize("decay_vectors", [False, True])
@pytest.mark.parametrize("name", REFERENCES)
def test_an_optimizer_is_its_formula_for_twenty_updates(name: str, decay_vectors: bool) -> None:
    model = network()
    # Without full rank, the eigenvectors of a first gradient are any.
    skipped = ("base_model.two.weight",) if name == "soap" else ()
    before = {key: weight.detach().numpy().copy() for key, weight in model.named_parameters()}
    optimizer = build_optimizer(name, model, RATE, DECAY, decay_vectors, sophia_rho=0.5, hessian_interval=4)
    every = list(gradients(model))
    for update, each in enumerate(every):
        if isinstance(optimizer, Sophia) and update % optimizer.hessian_interval == 0:
            set_gradients(model, every[(update + 1) % NUM_UPDATES])
            optimizer.add_hessian(32, update)
        set_gradients(model, each)
        for group in optimizer.param_groups:
            group["lr"] = rate_of(update) if name == "schedule-free" else RATE
        optimizer.step()
    take_average(optimizer)
    groups = group_of(model)
    for key, weight in model.named_parameters():
        decay = DECAY if decay_vectors or groups[key] != "vectors" else 0.0
        expected = REFERENCES[name](before[key], [each[key] for each in every], decay, groups[key])
        if key not in skipped:
            np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-9, atol=1e-12, err_msg=key)


def test_soap_learns_its_bases_from_the_first_gradient_and_moves_no_matrix_by_it() -> None:
    model: Any = network()
    optimizer = build_optimizer("soap", model, RATE, 0.0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    set_gradients(model, next(gradients(model)))
    optimizer.step()
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {"base_model.table.weight", "base_model.one.bias", "head.bias"}
    tall, state = model.base_model["two"].weight, optimizer.state[model.base_model["two"].weight]
    rotated = state["basis_left"].T @ tall.grad @ state["basis_right"]
    assert rotated.abs().gt(1e-9).sum() == 4  # diagonal: as many as it has singular values


def test_muon_turns_the_layers_matrices_alone() -> None:
    model = network()
    optimizer = build_optimizer("muon", model, RATE, 0.0)
    for each in gradients(model):
        set_gradients(model, each)
        optimizer.step()
    of_muon = {name for name, weight in model.named_parameters() if "v" not in optimizer.state[weight]}
    assert of_muon == {"base_model.one.weight", "base_model.two.weight"}
    assert group_of(model) == {
        "base_model.table.weight": "embeddings",
        "base_model.one.weight": "layers",
        "base_model.one.bias": "vectors",
        "base_model.two.weight": "layers",
        "head.weight": "head",
        "head.bias": "vectors",
    }


def test_what_muon_orthogonalizes_is_torchs_to_bf16s_rounding() -> None:
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(0))
    for each in (matrix, matrix.T):
        theirs = torch.nn.Parameter(torch.zeros_like(each))
        theirs.grad = each.clone()
        optimizer = torch.optim.Muon([theirs], lr=1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        optimizer.step()
        ours = orthogonalized(each) * 0.2 * 30**0.5
        torch.testing.assert_close(ours, -theirs.data, rtol=0.0, atol=0.03)
        values = torch.linalg.svdvals(orthogonalized(each))
        assert 0.6 < values.min() <= values.max() < 1.3


@pytest.mark.parametrize("name", ["adamw", "lamb", "muon", "soap", "schedule-free"])
def test_epsilon_and_betas_reach_every_group(name: str) -> None:
    optimizer = build_optimizer(name, network(), RATE, 0.0, adam_epsilon=1e-3, beta1=0.7)
    own = build_optimizer(name, network(), RATE, 0.0)
    for group, unchanged in zip(optimizer.param_groups, own.param_groups, strict=True):
        assert (group["eps"], group["betas"]) == (1e-3, (0.7, unchanged["betas"][1]))
        assert unchanged["eps"] != 1e-3


def test_a_lion_whose_gradient_is_gone_moves_by_its_rate_all_the_same() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = build_optimizer("lion", torch.nn.ParameterList([weight]), 0.1, 0.0)
    for gradient in (1.0, 0.0):
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    torch.testing.assert_close(weight.data, torch.full((3, 2), 0.8))


def test_what_schedule_free_saves_is_the_average_and_not_where_it_trained() -> None:
    model: Any = network()
    optimizer = build_optimizer("schedule-free", model, RATE, 0.0)
    iterates = []
    for each in gradients(model):
        set_gradients(model, each)
        optimizer.step()
        iterates.append(optimizer.state[model.head.weight]["z"].clone())
    trained = model.head.weight.detach().clone()
    take_average(optimizer)
    torch.testing.assert_close(model.head.weight.detach(), torch.stack(iterates).mean(0), rtol=1e-9, atol=1e-12)
    assert (model.head.weight - trained).abs().max() > 1e-3
