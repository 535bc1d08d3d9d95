"""Networks that predict masked tokens: of any size from scratch, or to go on with."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.modeling.load import DROPOUT_FIELDS, HERE, find_model

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HEADS = {
    "bert": "cls",
    "roberta": "lm_head",
    "camembert": "lm_head",
    "xlm-roberta": "lm_head",
    "roberta-prelayernorm": "lm_head",
}
"""config.model_type -> the attribute that makes logits of hidden states."""
LEAST_POSITIONS = 512
"""A model from scratch has as many, so that its training can go on with longer sequences."""


def prediction_head(model: "nn.Module") -> "Callable[[Tensor], Tensor]":
    """Of hidden states (..., hidden), logits (..., vocabulary)."""
    head: Callable[[Tensor], Tensor] = getattr(model, HEADS[model.config.model_type])  # type: ignore[union-attr,index,arg-type]
    return head


def build_masked_lm(
    architecture: str,
    tokenizer: "PreTrainedTokenizerBase",
    layers: int,
    hidden: int,
    heads: int,
    intermediate: int,
    dropout: float,
    sequence_length: int,
) -> "PreTrainedModel":
    """A network from scratch, in fp32: BERT (arXiv 1810.04805), or with LayerNorm before each sub-layer (arXiv 2002.04745).
    Weights from torch's global seed.

    It has two token types, so that it can be adapted to pairs of texts.
    """
    from transformers import AutoConfig, AutoModelForMaskedLM

    offset = 0 if architecture == "bert" else tokenizer.pad_token_id + 1  # type: ignore[operator]  # where RoBERTa's positions begin
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=max(LEAST_POSITIONS, sequence_length) + offset,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    model: PreTrainedModel = AutoModelForMaskedLM.from_config(config, attn_implementation="sdpa")
    return model


def load_masked_lm(model: str, vocabulary_size: int, dropout: float, sequence_length: int) -> "PreTrainedModel":
    """A model with its prediction head, in fp32. One without such a head gets a new one, from torch's global seed.

    Raises:
        UserError: it cannot be loaded, is of another family, or takes fewer tokens or shorter sequences.
    """
    from transformers import AutoConfig, AutoModelForMaskedLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    place = find_model(model)
    try:
        config: Any = AutoConfig.from_pretrained(place, **HERE)
        if config.model_type not in HEADS:
            raise UserError(f"initial_model {model} is of family {config.model_type}: give one of {', '.join(HEADS)}")
        for name in DROPOUT_FIELDS:
            if hasattr(config, name):
                setattr(config, name, dropout)
        loaded: PreTrainedModel
        loaded, report = AutoModelForMaskedLM.from_pretrained(
            place, **HERE, config=config, attn_implementation="sdpa", dtype="float32", output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the model in {model}: {' '.join(str(error).split())[:160]}") from None
    body = f"{loaded.base_model_prefix}."
    if lost := sorted(key for key in report["missing_keys"] if key.startswith(body)):
        raise UserError(f"{model} has no weights for {len(lost)} tensors of its {config.model_type} body, such as {lost[0]}")
    embeddings = loaded.get_input_embeddings().weight.shape[0]  # type: ignore[index]
    if embeddings < vocabulary_size:
        raise UserError(f"{model} has {embeddings} word embeddings, the corpus {vocabulary_size} tokens: they differ")
    offset = 0 if config.model_type == "bert" else config.pad_token_id + 1
    if config.max_position_embeddings - offset < sequence_length:
        most = config.max_position_embeddings - offset
        raise UserError(f"sequence_length is {sequence_length}, but {model} takes at most {most} tokens")
    return loaded
