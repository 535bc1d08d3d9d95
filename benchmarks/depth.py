"""Does leaving out layers save the time that the layers' share of the arithmetic says?

    python benchmarks/depth.py [--quick]

Masked-LM with LayerNorm before each sub-layer and a head that computes masked places only, in two arms that take turns update
by update, so that a machine that slows down slows down both: all layers, and progressive layer dropping over a run of so many
updates. An update is forward, backward, clipping and the optimizer's step. What is predicted is the share of the multiply-adds
that the layers left out would have taken. Random tokens, no padding: time does not depend on what the words are. Prints what
was predicted and measured; writes depth.json.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import measure
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForMaskedLM

from components import cli, parameters
from components.errors import UserError
from components.modeling.abilities import PRE_LN
from components.modeling.depth import dropped_parameters, left_alone, make_droppable, set_active
from components.training.budget import Progress
from components.training.depth import build_depth
from components.training.optimizers import build_optimizer

SPARSE = 0.15
"""Share of the places that are predicted."""
QUICK = {"layers": 12, "hidden": 256, "updates": 40, "batch_size": 4}


def depth(
    *,
    output_dir: Path = Path("build/depth"),
    layers: int = 12,
    hidden: int = 768,
    vocabulary_size: int = 30_522,
    sequence_length: int = 128,
    batch_size: int = 8,
    updates: int = 100,
    depth_keep: float = parameters.depth_keep,
    depth_rate: float = parameters.depth_rate,
    quick: bool = False,
) -> None:
    """Measure an update with layers left out against one of the whole model.

    Args:
        output_dir: Folder for depth.json.
        layers: Of the model; the feed-forward part is four times as wide as hidden, a head for every 64.
        hidden: Its size.
        vocabulary_size: Tokens.
        sequence_length: Tokens of an example.
        batch_size: Examples per update.
        updates: Of the run, over which the schedule goes.
        depth_keep: Theta_bar, as in components.pretrain.
        depth_rate: Gamma.
        quick: 12 layers of 256, 40 updates of 4 examples: a minute or two.
    """
    if quick:
        layers, hidden, updates, batch_size = QUICK.values()
    if min(layers, hidden, vocabulary_size, sequence_length, batch_size, updates) < 1:
        raise UserError("layers, hidden, vocabulary_size, sequence_length, batch_size and updates must be 1 or more")
    dropping = build_depth("pld", depth_keep, depth_rate)
    arms = {"all": Arm(layers, hidden, vocabulary_size), "pld": Arm(layers, hidden, vocabulary_size)}
    tokens = torch.randint(vocabulary_size, (batch_size, sequence_length))
    for arm in arms.values():
        arm.update(tokens, None)  # warm
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    computed = []
    for update in tqdm(range(updates), desc="depth", unit=" updates", disable=None):
        active = dropping.active(Progress(update, update / updates, seed=0), layers)
        computed.append(len(active or ()))
        for name in sorted(arms, reverse=bool(update % 2)):
            seconds[name].append(arms[name].update(tokens, active if name == "pld" else None))
    share = layers_share(layers, hidden, vocabulary_size, sequence_length)
    mean = statistics.mean(computed)
    predicted = share * (1 - mean / layers)
    measured = 1 - sum(seconds["pld"]) / sum(seconds["all"])
    whole = [100 * (1 - one / other) for one, other in zip(seconds["pld"], seconds["all"], strict=True)]
    print(f"{layers} layers of {hidden}, {batch_size} x {sequence_length} tokens, {updates} updates; {measure.machine()}")
    print(f"layers' share of the multiply-adds {share:.3f}; layers computed {mean:.2f} of {layers}")
    print(
        f"saved, predicted {100 * predicted:.1f} %, measured {100 * measured:.1f} %: {100 * (measured - predicted):+.1f} points"
    )
    shape = {"layers": layers, "hidden": hidden, "vocabulary_size": vocabulary_size, "sequence_length": sequence_length}
    setting = {**shape, "batch_size": batch_size, "updates": updates, "depth_keep": depth_keep, "depth_rate": depth_rate}
    results = {"layers_share": share, "layers_computed": mean, "predicted": predicted, "measured": measured}
    each = {name: measure.spread(values) for name, values in seconds.items()}
    measure.save(output_dir, "depth", {**setting, **results, "seconds": each, "saved_percent": measure.spread(whole)})


def layers_share(layers: int, hidden: int, vocabulary_size: int, sequence_length: int) -> float:
    """Of the multiply-adds of a forward pass, and of a backward pass too: four projections, feed-forward, scores and mixing,
    against the prediction head at the masked places.
    """
    a_layer = 4 * hidden**2 + 2 * 4 * hidden**2 + 2 * sequence_length * hidden
    head = SPARSE * (hidden**2 + hidden * vocabulary_size)
    return layers * a_layer / (layers * a_layer + head)


class Arm:
    """A network and its optimizer."""

    def __init__(self, layers: int, hidden: int, vocabulary_size: int) -> None:
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            PRE_LN[0], num_hidden_layers=layers, hidden_size=hidden, intermediate_size=4 * hidden, vocab_size=vocabulary_size,
            num_attention_heads=max(1, hidden // 64), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.network: Any = AutoModelForMaskedLM.from_config(config, attn_implementation="sdpa").train()
        make_droppable(self.network, scaled=True)
        self.optimizer = build_optimizer("adamw", self.network, 1e-6, 0.01)

    def update(self, tokens: Tensor, active: Any) -> float:
        """Its seconds."""
        started = time.perf_counter()
        set_active(self.network, active)
        states = self.network.base_model(tokens).last_hidden_state
        places = slice(0, round(SPARSE * tokens.shape[1]))
        logits = self.network.lm_head(states[:, places])
        nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, places].flatten()).backward()
        with left_alone(dropped_parameters(self.network)):
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        return time.perf_counter() - started


if __name__ == "__main__":
    cli.run(depth, "python benchmarks/depth.py")
