"""Networks of random weights in float64, and batches for them."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from components.modeling.load import load_tokenizer
from components.training.data import Batch

SIZES = {"vocab_size": 50, "hidden_size": 16, "embedding_size": 16, "intermediate_size": 24}
SHAPE = {**SIZES, "num_hidden_layers": 3, "num_attention_heads": 2}


def model(family: str, attention_dropout: float = 0.0, **given: Any) -> Any:
    torch.manual_seed(0)
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": attention_dropout, "summary_last_dropout": 0.0}
    config = AutoConfig.for_model(family, **{**SHAPE, **off, "num_labels": 3, "pad_token_id": 1, **given})
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa").double().train()


def batch(lengths: list[int], packed: bool) -> Batch:
    tokens = torch.tensor(lengths)
    mask = torch.arange(max(lengths)) < tokens[:, None]
    ids = torch.randint(2, 50, mask.shape, generator=torch.Generator().manual_seed(1)).masked_fill(~mask, 1)
    rows = torch.arange(len(lengths))
    return Batch(ids, mask.long(), None, rows % 3, rows, tokens if packed else None)


def save_pre_ln(folder: Path, num_layers: int = 3) -> Path:
    """A model with LayerNorm before each sub-layer and the tokenizer of `tiny`: a folder that a training takes."""
    tokenizer = load_tokenizer("tiny")
    own = {"vocab_size": len(tokenizer), "num_hidden_layers": num_layers, "hidden_size": 32, "pad_token_id": 0}
    model("roberta-prelayernorm", **own, type_vocab_size=2).float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
