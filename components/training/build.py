"""The model and the method, ready to train."""

from dataclasses import fields
from typing import Any

import torch
from transformers import PreTrainedModel

from components import parameters
from components.modeling.dropout import use_fast_dropout
from components.modeling.embedding import add_in_place
from components.modeling.packing import pack
from components.training.methods import Method
from components.training.methods.freelb import FreeLB
from components.training.methods.pgd import Pgd
from components.training.methods.plain import Plain
from components.training.methods.rdrop import RDrop
from components.training.methods.scala import Scala
from components.training.methods.smart import Smart

METHODS: dict[parameters.Method, type[Method]] = {
    "plain": Plain,
    "scala": Scala,
    "smart": Smart,
    "pgd": Pgd,
    "freelb": FreeLB,
    "rdrop": RDrop,
}


def prepare_model(model: PreTrainedModel, device: torch.device) -> None:
    """Put the model on the device, ready to train: no work on padding, none on words that a batch has not."""
    model.to(device).train()  # type: ignore[arg-type]
    pack(model)
    if device.type == "cpu":
        add_in_place(model.get_input_embeddings())  # type: ignore[arg-type]
        use_fast_dropout(model)


def build_method(method: parameters.Method, arguments: dict[str, Any]) -> Method:
    """The method with its fields out of `arguments`, which may hold more."""
    kind: Any = METHODS[method]
    built: Method = kind(**{field.name: arguments[field.name] for field in fields(kind)})
    return built
