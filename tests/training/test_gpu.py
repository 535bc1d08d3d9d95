"""What the CPU tests check, on a GPU where there is one: the same numbers, and the precisions that GPUs are for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_methods import NOISE, VARIANTS

from components.modeling.compiled import compile_layers
from components.modeling.load import load_model, load_tokenizer
from components.modeling.packed import pack
from components.tasks.table import TASKS
from components.train.stage import train
from components.training.budget import Progress
from components.training.data import read_split
from components.training.methods import METHODS, build_method
from components.training.noise import normal_noise, uniform_noise
from components.training.objectives import Classification
from components.training.precision import Arithmetic

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
NOISY = Progress(update=4, share=4 / 6, seed=3)  # every variant's noise is on


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_gpu_computes_the_gradient_of_the_cpu(tokenized: Callable[[str], Path], variant: str) -> None:
    """In float64, without dropout."""
    split = read_split(tokenized("rte"), "train")
    method = build_method(VARIANTS[variant]["method"], {**NOISE, **VARIANTS[variant]})
    gradients = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        network: Any = load_model("tiny", TASKS["rte"], len(load_tokenizer("tiny")), dropout=0.0)
        network.double().to(device).train()
        batch = split.batch(torch.arange(16), 0, torch.device(device))
        for loss in method.losses(Classification(), network, batch, NOISY):
            loss.total.backward()
        gradients.append([weight.grad.cpu() for weight in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)  # the random start is made in fp32


@pytest.mark.parametrize("make", [lambda batch, hidden, at: normal_noise(batch, hidden, 1.0, at), uniform_noise])
def test_a_gpu_draws_the_noise_of_the_cpu(tokenized: Callable[[str], Path], make: Callable[..., torch.Tensor]) -> None:
    split = read_split(tokenized("rte"), "train")
    one, other = (make(split.batch(torch.arange(16), 0, torch.device(device)), 64, NOISY) for device in ("cpu", "cuda"))
    torch.testing.assert_close(other.cpu(), one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_trains_in_every_precision(
    tokenized: Callable[[str], Path], tmp_path: Path, method: Any, precision: Any
) -> None:
    train(
        data_dir=tokenized("rte"), model="tiny", output_dir=tmp_path / "m", method=method, precision=precision,
        num_epochs=4, learning_rate=1e-3, global_batch_size=64, **NOISE,
    )  # fmt: skip
    losses = [json.loads(line)["loss"] for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 1.2 * losses[0]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_examples_end_to_end_give_the_gradient_of_padded_ones(
    tokenized: Callable[[str], Path], precision: Any, compiled: bool
) -> None:
    """In 16 bits, where a kernel takes lengths; as near to fp64 as a padded batch in 16 bits is."""
    split, device = read_split(tokenized("rte"), "train"), torch.device("cuda")
    assert split.lengths[:16].unique().numel() > 1
    gradients: dict[str, torch.Tensor] = {}
    cases: Any = (("exact", False, "fp64"), ("padded", False, precision), ("packed", True, precision))
    for name, packed, dtype in cases:
        torch.manual_seed(0)
        network: Any = load_model("tiny", TASKS["rte"], len(load_tokenizer("tiny")), dropout=0.0)
        network.to(device, torch.float64 if dtype == "fp64" else torch.float32).train()
        if packed:
            pack(network)
            if compiled:
                compile_layers(network)
        batch = split.batch(torch.arange(16), 0, device, packed)
        with Arithmetic(dtype, device).autocast():
            loss = Classification().losses(Classification().outputs(network, batch), batch).sum()
        loss.backward()
        gradients[name] = torch.cat([weight.grad.double().flatten() for weight in network.parameters()])
    exact = gradients.pop("exact")
    off = {name: float((gradient - exact).norm() / exact.norm()) for name, gradient in gradients.items()}
    assert off["packed"] < 1.5 * off["padded"] < 0.1


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_shared_dropout_is_shared_on_a_gpu(tokenized: Callable[[str], Path], precision: Any) -> None:
    split = read_split(tokenized("rte"), "train")
    network: Any = load_model("tiny", TASKS["rte"], len(load_tokenizer("tiny")), dropout=0.3)
    network.cuda().train()
    pack(network)
    batch = split.batch(torch.arange(16), 0, torch.device("cuda"), packed=True)
    divergences = {}
    for kind in ("shared", "independent"):
        arguments = {"perturbation_start": 0.0, "perturbation_radius": 0.0, "perturbation_dropout": kind}
        with Arithmetic(precision, torch.device("cuda")).autocast():
            (loss,) = build_method("scala", arguments).losses(Classification(), network, batch, NOISY)
        divergences[kind] = loss.parts["divergence"].item()
    assert divergences["shared"] < 1e-6 < 1e-3 < divergences["independent"]
