"""torch.compile computes what is asked for, and nothing twice."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from components.modeling.compiled import compile_layers
from components.modeling.load import load_model
from components.modeling.prepare import prepare_model
from components.tasks.table import TASKS
from components.training.data import Batch, Split
from components.training.noise import noise_gradient
from components.training.objectives import Classification

CPU = torch.device("cpu")
OBJECTIVE = Classification()


def network_of(compiled: bool) -> Any:
    torch._dynamo.reset()
    network = load_model("tiny", TASKS["sst2"], 500, 0.0)
    prepare_model(network, CPU)
    if compiled:
        compile_layers(network)
    return network


def batch_of(lengths: list[int]) -> Batch:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    tokens = {"input_ids": torch.randint(5, 400, (int(offsets[-1]),), dtype=torch.int32)}
    rows = Split(tokens, offsets, torch.randint(0, 2, (len(lengths),)))
    return rows.batch(torch.arange(len(lengths)), 0, CPU, True)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_ascent_computes_no_weight_gradient(compiled: bool) -> None:
    """Forward and back to the inputs: a matrix product each for every linear layer, and no third one."""
    network, batch = network_of(compiled), batch_of([12, 9, 7, 5])
    linear = sum(isinstance(module, torch.nn.Linear) for module in network.modules())
    for _ in range(2):  # compiled in the first
        embeddings = network.get_input_embeddings()(batch.input_ids)
        clean = OBJECTIVE.outputs(network, batch, embeddings)
        noise = 0.01 * torch.randn_like(embeddings)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            noise_gradient(OBJECTIVE, network, embeddings, noise, batch, lambda outputs: OBJECTIVE.losses(outputs, batch))
        OBJECTIVE.losses(clean, batch).sum().backward()
    counted = {event.key: event.count for event in profiled.key_averages()}
    assert (counted["aten::addmm"], counted["aten::mm"]) == (linear, linear)
    assert all(weight.requires_grad and weight.grad is not None for weight in network.parameters())


def test_another_number_of_tokens_compiles_nothing_anew() -> None:
    """Packed batches hardly repeat theirs. Compiled are a static number, then any, with runs of one length or of several."""
    network, drawn = network_of(True), torch.Generator().manual_seed(0)
    for number in range(20):
        lengths = torch.randint(2, 40, (3 + number,), generator=drawn).sort(descending=True).values.tolist()
        batch = batch_of(lengths)
        embeddings = network.get_input_embeddings()(batch.input_ids)
        losses = partial(OBJECTIVE.losses, batch=batch)
        with torch.compiler.set_stance("default" if number < 8 else "fail_on_recompile"):
            clean = OBJECTIVE.outputs(network, batch)
            noise_gradient(OBJECTIVE, network, embeddings, torch.zeros_like(embeddings), batch, losses)
            losses(clean).sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())  # and fail_on_recompile has raised nothing
