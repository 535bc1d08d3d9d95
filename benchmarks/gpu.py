"""How fast is an update on a GPU, for each method, model, batch and with torch.compile or without?

    python benchmarks/gpu.py [--quick]

Models have random weights in the shapes of BERT-base, BERT-large and MiniLM; examples are random tokens, either 128 each or of
SST-2's lengths. Each case is an update with everything: batches, passes, clipping, AdamW; in micro-batches of as many tokens as
the GPU holds, found as components.train finds them. Needs neither files nor a network. Runs on a CPU too, where it says little.

Model FLOPs utilisation (Chowdhery et al., arXiv 2204.02311, appendix B): 6 N + 12 L H Q operations a token, with N weights
besides the embeddings, L layers of width H and Q tokens an example, over what the GPU's maker promises for the precision, or
over a large matrix product measured here where the GPU is unknown. It counts the model's operations, not those that are really
made: what a method adds lowers it, what we leave out (the last layer for all tokens but the first) raises it.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from measure import bars, machine, save, spread
from methods import NOISY, random_rows
from torch import nn
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, BertConfig

from components import cli, parameters
from components.errors import UserError
from components.modeling.compiled import compile_layers
from components.modeling.prepare import prepare_model
from components.parameters import Precision
from components.training.data import Split, micro_batches
from components.training.memory import choose_tokens, costliest, held_later
from components.training.methods import METHODS, build_method
from components.training.objectives import Classification
from components.training.optimizers import build_optimizer
from components.training.precision import Arithmetic, choose_arithmetic
from components.training.selection import rows_of_update
from components.training.update import accumulate_gradients

SHAPES: dict[str, dict[str, int]] = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "bert-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
}
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12}
"""Of 16-bit matrix products without sparsity, by what the device's name contains (its maker's data sheet)."""
SST2_ROWS = 67_349


def gpu(
    *,
    output_dir: Path = Path("build/gpu"),
    models: list[str] = ["minilm", "bert-base", "bert-large"],
    methods: list[str] = ["plain", "scala"],
    batch_sizes: list[int] = [32, 1024],
    lengths: list[int] = [0, 128],
    compile: bool = True,
    precision: Precision = "auto",
    updates: int = 5,
    quick: bool = False,
) -> None:
    """Measure updates on a GPU.

    Args:
        output_dir: Folder for the results.
        models: Shapes: minilm, bert-base, bert-large or tiny.
        methods: As in components.train, with its defaults; measured where their noise is on.
        batch_sizes: Examples per update.
        lengths: Tokens of each example; 0 for SST-2's lengths, 4 to 64.
        compile: Measure all with torch.compile too.
        precision: As in components.train.
        updates: Updates that are timed, after two that are not.
        quick: The tiny model, batches of 32, 2 updates.
    """
    if quick:
        models, batch_sizes, updates = ["tiny"], [32], 2
    for name, given, known in (("models", models, SHAPES), ("methods", methods, METHODS)):
        if unknown := [each for each in given if each not in known]:
            raise UserError(f"unknown {name} {unknown[0]!r}: take {', '.join(known)}")
    if min(updates, *batch_sizes) < 1 or min(lengths) < 0 or max(lengths) > 512:
        raise UserError("updates and batch_sizes must be 1 or more, lengths 0 to 512")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arithmetic = choose_arithmetic(precision, device)
    peak = peak_flops(arithmetic)
    cases = [
        (model, length, size, method, compiled)
        for model in models
        for compiled in ((False, True) if compile else (False,))
        for length in lengths
        for size in batch_sizes
        for method in methods
    ]
    results: dict[str, dict[str, Any]] = {}
    print(f"{machine()}; {arithmetic.name}, peak {peak / 1e12:.1f} TFLOP/s")
    print(
        f"{'case':44} {'samples/s':>9} {'tokens/s':>9} {'MFU':>6} {'GiB':>6} {'tokens':>7} {'/ plain':>8} {'SST-2 epoch':>12}"
    )
    for case in tqdm(cases, desc="gpu", unit=" cases", disable=None):
        model, length, size, method, compiled = case
        result = measure(model, length, size, method, compiled, arithmetic, updates)
        name = f"{model}, {length or 'SST-2'} tokens, batch {size}, {method}{', compiled' if compiled else ''}"
        plain = results.get(name.replace(f", {method}", ", plain"), result if method == "plain" else {})
        config = SHAPES[model]
        operations = 6 * result["weights"] + 12 * config["num_hidden_layers"] * config["hidden_size"] * result["mean_length"]
        result["mfu"] = operations * result["tokens_per_second"] / peak
        result["cost"] = plain["samples_per_second"]["median"] / result["samples_per_second"]["median"] if plain else None
        results[name] = result
        rate = result["samples_per_second"]["median"]
        cost = f"{result['cost']:8.2f}" if plain else f"{'':8}"
        epoch = f"{SST2_ROWS / rate:10.1f} s" if not length else ""
        print(
            f"{name:44} {rate:9.0f} {result['tokens_per_second']:9.0f} {result['mfu']:6.1%} {result['gib']:6.1f} "
            f"{result['micro_batch_tokens']:7} {cost} {epoch:>12}",
            flush=True,
        )
    save(output_dir, "gpu", {"precision": arithmetic.name, "peak_flops": peak, "cases": results})
    groups = {name: {"samples/s": result["samples_per_second"]} for name, result in results.items()}
    bars(output_dir / "gpu.png", f"{machine()}, {arithmetic.name}", "samples/s", groups)


def measure(
    model: str, length: int, batch_size: int, method: str, compiled: bool, arithmetic: Arithmetic, updates: int
) -> dict[str, Any]:
    device = arithmetic.device
    torch.manual_seed(0)
    shape: dict[str, Any] = SHAPES[model]
    dropout = parameters.dropout
    config = BertConfig(**shape, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    network: Any = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    prepare_model(network, device)
    if compiled:
        compile_layers(network)
    optimizer = build_optimizer("adamw", network, 1e-6, 0.0)
    the_method = build_method(method, {})
    rows = _rows(batch_size, length, config.vocab_size)

    def compute(chosen: torch.Tensor, tokens: int) -> None:
        pieces = micro_batches(chosen, rows.lengths[chosen], tokens, 0, 1)
        batches = (rows.batch(piece, 0, device, True) for piece in pieces)
        weight = 1 / len(chosen)
        losses = accumulate_gradients(network, the_method, Classification(), batches, len(pieces), NOISY, weight, arithmetic)
        for _ in losses:
            pass

    def compute_costliest(tokens: int) -> None:
        for piece in costliest(rows.lengths, batch_size, tokens):
            compute(piece, tokens)
        optimizer.zero_grad(set_to_none=False)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    most, later = batch_size * int(rows.lengths.max()), held_later(network, optimizer)
    tokens = choose_tokens(device, compute_costliest, most, later)
    seconds = []
    for update in range(2 + updates):
        started = _now(device)
        compute(rows_of_update(update, len(rows), batch_size, 0), tokens)
        arithmetic.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        arithmetic.scaler.step(optimizer)
        arithmetic.scaler.update()
        optimizer.zero_grad(set_to_none=False)
        seconds.append(_now(device) - started)
    rates = spread([batch_size / each for each in seconds[2:]])
    mean_length = float(rows.lengths.double().mean())
    embeddings = sum(weight.numel() for weight in network.base_model.embeddings.parameters())
    return {
        "samples_per_second": rates,
        "tokens_per_second": rates["median"] * mean_length,
        "micro_batch_tokens": tokens,
        "mean_length": mean_length,
        "weights": sum(weight.numel() for weight in network.parameters()) - embeddings,
        "gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0,
    }


def _rows(batch_size: int, length: int, vocab_size: int) -> Split:
    """One batch of random tokens."""
    if not length:
        return random_rows(batch_size, vocab_size)
    tokens = torch.randint(vocab_size // 2, vocab_size, (batch_size * length,), dtype=torch.int32)
    offsets = torch.arange(batch_size + 1) * length
    return Split({"input_ids": tokens}, offsets, torch.randint(0, 2, (batch_size,)))


def peak_flops(arithmetic: Arithmetic) -> float:
    """Operations a second that the device could make in this precision: promised, or measured where it is unknown."""
    device = arithmetic.device
    if device.type == "cuda" and arithmetic.name in ("bf16", "fp16"):
        promised = [peak for name, peak in PEAKS.items() if name in torch.cuda.get_device_name()]
        if promised:
            return promised[0]
    size = 8192 if device.type == "cuda" else 1024
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}.get(arithmetic.name, torch.float32)
    square = torch.randn(size, size, device=device, dtype=dtype)
    seconds = []
    for _ in range(10):
        started = _now(device)
        torch.mm(square, square)
        seconds.append(_now(device) - started)
    return 2 * size**3 / statistics.median(seconds[2:])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    cli.run(gpu, "python benchmarks/gpu.py")
