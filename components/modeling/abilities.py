"""What a model can do, as far as its configuration tells."""

from transformers import PreTrainedModel

PACKABLE = ("bert", "camembert", "electra", "roberta", "xlm-roberta")
"""config.model_type of the models with an encoder of BERT's build and a head that reads the first token."""


def can_pack(model: PreTrainedModel) -> bool:
    """Whether its encoder can see a batch's tokens end to end, without padding."""
    return model.config.model_type in PACKABLE
