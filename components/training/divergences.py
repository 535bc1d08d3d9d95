"""How far two predictions are apart, per example: (batch, outputs), (batch, outputs) -> (batch,), in fp32 or fp64.

The first is the clean prediction, the second the noisy one. Each has its minimum, and a zero gradient, where they agree.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def kl(clean: Tensor, noisy: Tensor) -> Tensor:
    """KL(p, q) of the softmax distributions, where the clean p is a fixed target: only the noisy side learns."""
    log_p, log_q = _log_softmax(clean.detach()), _log_softmax(noisy)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def symmetric_kl(clean: Tensor, noisy: Tensor) -> Tensor:
    """KL(p, q) + KL(q, p), with its whole gradient through both sides."""
    log_p, log_q = _log_softmax(clean), _log_softmax(noisy)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


def mutual_kl(clean: Tensor, noisy: Tensor) -> Tensor:
    """The value of symmetric_kl, where each side learns from the other as from a fixed target: KL(sg p, q) + KL(sg q, p)."""
    log_p, log_q = _log_softmax(clean), _log_softmax(noisy)
    p, q = log_p.detach().exp(), log_q.detach().exp()
    return (p * (log_p.detach() - log_q) + q * (log_q.detach() - log_p)).sum(-1)


def js(clean: Tensor, noisy: Tensor) -> Tensor:
    """Jensen-Shannon: (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2, at most log 2; gradient through both sides."""
    log_p, log_q = _log_softmax(clean), _log_softmax(noisy)
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, dtype=log_p.dtype))
    return (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(-1) / 2


def mse(clean: Tensor, noisy: Tensor) -> Tensor:
    """Squared difference of the outputs, logits or scores, averaged over them; gradient through both sides."""
    return (at_least_fp32(clean) - at_least_fp32(noisy)).square().mean(-1)


def mean_kl(clean: Tensor, noisy: Tensor) -> Tensor:
    """(KL(p, q) + KL(q, p)) / 2, with its whole gradient through both sides: R-Drop's."""
    return symmetric_kl(clean, noisy) / 2


DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "symmetric_kl": mutual_kl,
    "kl": kl,
    "js": js,
    "mse": mse,
    "mean_kl": mean_kl,
}
"""As the loss sees them."""

ASCENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"symmetric_kl": symmetric_kl}
"""Those of the same value whose whole gradient goes through the noisy side, where the loss's own does not."""


def at_least_fp32(values: Tensor) -> Tensor:
    """bf16 and fp16 to fp32; fp64 stays."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def _log_softmax(logits: Tensor) -> Tensor:
    return F.log_softmax(at_least_fp32(logits), -1)
