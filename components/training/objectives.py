"""What a network is trained to do: its outputs, their losses, and how far two of them are apart."""

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from components.training.data import Batch
from components.training.divergences import ASCENTS, DIVERGENCES, at_least_fp32, mse


class Objective(Protocol):
    def outputs(self, model: nn.Module, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        """Of each example, at the positions that are read: (examples, outputs).

        Args:
            embeddings: (batch, token, hidden), in place of those of the batch's tokens.
        """

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Of each example, in fp32 or fp64: (examples,)."""

    def divergence(self, name: str, clean: Tensor, noisy: Tensor, batch: Batch, ascent: bool = False) -> Tensor:
        """What `noisy` loses against `clean`: (examples,).  `label`: the loss of `noisy`, no divergence at all.

        Args:
            ascent: The clean side is fixed and the whole gradient goes through the noisy side: what noise climbs.
        """


class _OfSequences:
    """A label for each example, read at its first token."""

    def outputs(self, model: nn.Module, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        given = {"input_ids": batch.input_ids} if embeddings is None else {"inputs_embeds": embeddings}
        logits: Tensor = model(**given, **batch.context).logits
        return logits


@dataclass(frozen=True)
class Classification(_OfSequences):
    """Cross-entropy.  outputs: (examples, classes) logits.  labels: (examples,) int64."""

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(at_least_fp32(outputs), batch.labels, reduction="none")

    def divergence(self, name: str, clean: Tensor, noisy: Tensor, batch: Batch, ascent: bool = False) -> Tensor:
        if name == "label":
            return self.losses(noisy, batch)
        return ASCENTS.get(name, DIVERGENCES[name])(clean.detach(), noisy) if ascent else DIVERGENCES[name](clean, noisy)


@dataclass(frozen=True)
class Regression(_OfSequences):
    """Squared error.  outputs: (examples, 1).  labels: (examples,) float32. Every divergence is `mse`."""

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return (at_least_fp32(outputs).squeeze(-1) - batch.labels).square()

    def divergence(self, name: str, clean: Tensor, noisy: Tensor, batch: Batch, ascent: bool = False) -> Tensor:
        if name == "label":
            return self.losses(noisy, batch)
        return mse(clean.detach() if ascent else clean, noisy)


def objective_of(is_regression: bool) -> Objective:
    return Regression() if is_regression else Classification()
