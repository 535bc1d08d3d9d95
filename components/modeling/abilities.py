"""What a model can do, as far as its configuration tells. Imports no torch: what checks parameters need not have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PRE_LN = ("roberta-prelayernorm",)
"""config.model_type of the models with LayerNorm before each sub-layer, inside the residual branch (arXiv 2002.04745)."""
PACKABLE = ("bert", "camembert", "electra", "roberta", *PRE_LN, "xlm-roberta")
"""config.model_type of the models with an encoder of BERT's build and a head that reads the first token."""


def can_pack(model: PreTrainedModel) -> bool:
    """Whether its encoder can see a batch's tokens end to end, without padding."""
    return model.config.model_type in PACKABLE


def check_depth(depth: str, model_type: str) -> None:
    """UserError where a model of this config.model_type cannot leave out layers in that way.

    Args:
        depth: `all`, `pld` or `layerdrop`.
    """
    if depth == "pld" and model_type not in PRE_LN:
        raise UserError(
            f"depth pld: {model_type} has no LayerNorm before each sub-layer: give depth layerdrop, or a model of family "
            f"{', '.join(PRE_LN)}"
        )
    if depth == "layerdrop" and model_type not in PACKABLE:
        raise UserError(f"depth layerdrop: {model_type} is not one of {', '.join(PACKABLE)}: give depth all")
