"""The network made ready to train: no work on padding, none on words that a batch has not."""

import torch
from transformers import PreTrainedModel

from components.modeling.abilities import check_depth
from components.modeling.depth import make_droppable
from components.modeling.dropout import use_fast_dropout
from components.modeling.embedding import add_in_place
from components.modeling.packed import pack


def prepare_model(model: PreTrainedModel, device: torch.device, depth: str = "all") -> None:
    """Put the model on the device and in training mode, and leave out what costs without changing a result.

    Args:
        depth: `pld` or `layerdrop` where layers are to be left out.

    Raises:
        UserError: it cannot leave out layers in that way.
    """
    check_depth(depth, model.config.model_type)
    model.to(device).train()  # type: ignore[arg-type]
    pack(model)
    if depth != "all":
        make_droppable(model, scaled=depth == "pld")
    if device.type == "cpu":
        if model.get_output_embeddings() is None:  # one that shares its weights has a gradient for every word anyway
            add_in_place(model.get_input_embeddings())  # type: ignore[arg-type]
        use_fast_dropout(model)
