"""What a network is trained to do: its outputs, their losses, and how far two of them are apart."""

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from components.modeling.masked_lm import prediction_head
from components.training.data import Batch
from components.training.divergences import ASCENTS, DIVERGENCES, at_least_fp32, mse
from components.training.masking import IGNORED


class Objective(Protocol):
    def outputs(self, model: nn.Module, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        """Of each example, at the positions that are read: (examples, outputs), or (examples, places, outputs).

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


@dataclass(frozen=True)
class MaskedLM:
    """Cross-entropy of the tokens that were masked, which alone go through the prediction head.

    outputs: (examples, places, vocabulary) logits.  labels: (examples, places) int64; IGNORED where an example has fewer.

    An example's loss is the mean over its own masked tokens, and the batch's the mean over its examples: so it is defined
    whatever the ranks and micro-batches. All examples have the same number of masked tokens, but for whole words and texts that
    are hardly more than separators, so that it is the mean over all masked tokens of the global batch too.
    """

    def outputs(self, model: nn.Module, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        given = {"input_ids": batch.input_ids} if embeddings is None else {"inputs_embeds": embeddings}
        states: Tensor = model.base_model(**given, **batch.context).last_hidden_state  # type: ignore[operator,union-attr]
        places: Tensor = batch.places  # type: ignore[assignment]
        if batch.lengths is None:
            states = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
        else:  # of these places alone there are states
            states = states[: places.numel(), 0].view(*places.shape, -1)
        logits: Tensor = prediction_head(model)(states)
        return logits

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        losses = F.cross_entropy(
            at_least_fp32(outputs).flatten(0, 1), batch.labels.flatten(), reduction="none", ignore_index=IGNORED
        )
        return self._means(losses, batch)

    def divergence(self, name: str, clean: Tensor, noisy: Tensor, batch: Batch, ascent: bool = False) -> Tensor:
        if name == "label":
            return self.losses(noisy, batch)
        clean, noisy = clean.flatten(0, 1), noisy.flatten(0, 1)
        apart = ASCENTS.get(name, DIVERGENCES[name])(clean.detach(), noisy) if ascent else DIVERGENCES[name](clean, noisy)
        return self._means(apart, batch)

    def _means(self, of_places: Tensor, batch: Batch) -> Tensor:
        """(examples * places,) to (examples,)"""
        real = batch.labels != IGNORED
        sums = of_places.view_as(real).masked_fill(~real, 0.0).sum(1)
        return sums / real.sum(1).clamp(min=1)


def objective_of(is_regression: bool) -> Objective:
    return Regression() if is_regression else Classification()
