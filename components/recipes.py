"""RECIPES: named sets of values for training, and which of them a run takes when nobody names one.

python -m components.recipes
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FEW_ROWS = 10_000
"""Fewer training rows than these call for more passes in smaller batches. RTE, MRPC, CoLA, STS-B and WNLI have fewer."""


@dataclass(frozen=True)
class Recipe:
    """values: parameters by name; what is absent has its default.  source: where the values are from, or what measured them."""

    values: Mapping[str, Any]
    good_for: str
    source: str = field(kw_only=True)


def _method(name: str, good_for: str, source: str, **values: Any) -> Recipe:
    return Recipe({**PLAIN, "method": name, **values}, good_for, source=source)


PLAIN: Mapping[str, Any] = {
    "method": "plain",
    "optimizer": "adamw",
    "num_epochs": 3.0,
    "global_batch_size": 32,
}
LARGE: Mapping[str, Any] = {"global_batch_size": 0}  # the largest that makes sense
FEW: Mapping[str, Any] = {
    **PLAIN, "num_epochs": 10.0, "learning_rate": 2e-5, "base_batch_size": 16, "global_batch_size": 16,
}  # fmt: skip
ROBERTA: Mapping[str, Any] = {
    **FEW, "warmup_ratio": 0.06, "weight_decay": 0.1, "decay_vectors": True,
    "adam_epsilon": 1e-6, "beta2": 0.98, "max_grad_norm": 0.0,
}  # fmt: skip

RECIPES: Mapping[str, Recipe] = {
    "plain": Recipe(
        PLAIN,
        "10,000 training rows and more: what a run takes there",
        source="BERT, arXiv 1810.04805, appendix A.3 (batches of 16 or 32, 2e-5 to 5e-5, 2 to 4 epochs)",
    ),
    "few-rows": Recipe(
        FEW,
        "fewer than 10,000 training rows: what a run takes there",
        source="RoBERTa, arXiv 1907.11692, table 10; Mosbach et al., arXiv 2006.04884, find 20 epochs steadier still",
    ),
    "large-batch": Recipe(
        {**PLAIN, **LARGE},
        "more devices than a small batch can feed; the bar that any noise has to clear",
        source="docs/methods.md: 0.6 points below batches of 32 on SST-2, at the same number of epochs",
    ),
    "lamb": Recipe(
        {**PLAIN, **LARGE, "optimizer": "lamb"},
        "batches of thousands; below that AdamW did better here",
        source="LAMB, arXiv 1904.00962; docs/methods.md",
    ),
    "scala": _method(
        "scala",
        "large batches with adversarial noise from half of the updates on; AdamW, which did better here than LAMB",
        "ScaLA, arXiv 2201.12469; what it leaves open is ours (docs/methods.md)",
        **LARGE,
    ),
    "scala-lamb": _method(
        "scala",
        "ScaLA with a rate for each tensor, as it is described",
        "ScaLA, arXiv 2201.12469; LAMB, arXiv 1904.00962",
        **LARGE,
        optimizer="lamb",
    ),
    "scala-every-update": _method(
        "scala",
        "ScaLA without its delay: steadier and better here, for 2.7 times plain training's time",
        "docs/methods.md",
        **LARGE,
        perturbation_start=0.0,
    ),
    "roberta": Recipe(
        ROBERTA,
        "RoBERTa on GLUE as it was published: the middle of its grid, batches of 16 or 32 at 1e-5, 2e-5 or 3e-5",
        source="RoBERTa, arXiv 1907.11692, table 10; fairseq's script for it: epsilon 1e-6, no clipping, all weights decay",
    ),
    "mosbach": Recipe(
        {**FEW, "num_epochs": 20.0, "warmup_ratio": 0.1, "adam_epsilon": 1e-6, "max_grad_norm": 1.0},
        "RTE, MRPC and CoLA without failed runs: twice the epochs, whose length is what counts",
        source="Mosbach et al., arXiv 2006.04884: 20 epochs, batches of 16, 1e-5 to 3e-5, bias correction, epsilon 1e-6",
    ),
    "freelb-rte": Recipe(
        {
            **ROBERTA,
            "method": "freelb",
            "learning_rate": 1e-5,
            "num_updates": 2036,
            "beta2": 0.999,
            "perturbation_steps": 4,
            "perturbation_step_size": 0.06,
            "perturbation_init_norm": 0.16,
            "perturbation_radius": 0.14,
            "perturbation_dropout": "shared",
        },
        "RoBERTa-large on RTE with FreeLB as it was published, but that the rate does reach zero",
        source="FreeLB, arXiv 1909.11764, and its authors' scripts; these stop at 10 epochs, near update 1,560 of 2,036",
    ),
    "smart": _method("smart", "smooth predictions, with noise at every update", "SMART, arXiv 1911.03437"),
    "freelb": _method("freelb", "training on m perturbed copies of each batch", "FreeLB, arXiv 1909.11764"),
    "pgd": _method("pgd", "training on the worst input near each example", "PGD, arXiv 1706.06083"),
    "masked-lm": Recipe(
        {**PLAIN, "learning_rate": 1e-3, "base_batch_size": 1536, "global_batch_size": 256, "num_epochs": 1.0, "dropout": 0.0},
        "pre-training on text, where it is what a run takes",
        source="Kaddour et al., No Train No Gain, arXiv 2307.06440, section 3 (1e-3 for batches of 1536, no dropout, one pass)",
    ),
    "rdrop": _method(
        "rdrop", "two passes that must agree, with dropout alone: a control for noise", "R-Drop, arXiv 2106.14448"
    ),
}


def choose_recipe(num_rows: int) -> tuple[str, str]:
    """(name, why) of the recipe for so many training rows, where nobody named one.

    No recipe with noise is among them: on what was tried, plain training gets as far in the same time (docs/methods.md).
    """
    if num_rows < FEW_ROWS:
        return "few-rows", f"{num_rows:,} training rows are fewer than {FEW_ROWS:,}"
    return "plain", f"{num_rows:,} training rows are {FEW_ROWS:,} or more"


if __name__ == "__main__":
    for name, recipe in RECIPES.items():
        print(f"{name}: {recipe.good_for}\n    {', '.join(f'{key} {value}' for key, value in recipe.values.items())}")
        print(f"    {recipe.source}")
