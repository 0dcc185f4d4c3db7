"""The loss of the best constant guess, from the targets that a plain loss function keeps for its backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unvanish.probe.kinds import plain_name

_SCALAR_STEPS = frozenset(("Mul", "Div", "Mean", "Sum", "View", "Squeeze", "Clone", "ToCopy", "Alias"))


def chance_of(loss: Tensor) -> tuple[int, Tensor] | None:
    """(sequence number of the loss operation, chance loss in its own units) for cross-entropy and squared error.

    Only where the loss is that one term, perhaps times a number: then the gradient that arrives at the
    operation is that number, and the caller multiplies by it. None everywhere else.
    """
    handle = loss.grad_fn
    for _ in range(8):
        if handle is None:
            return None
        name = plain_name(handle.name())
        reader = _READERS.get(name)
        if reader is not None:
            try:
                with torch.no_grad():
                    value = reader(handle)
            except Exception:  # targets that were freed, packed away or changed in place: not known
                return None
            return None if value is None else (handle._sequence_nr(), value)
        above = [n for n, _ in handle.next_functions if n is not None]
        if name not in _SCALAR_STEPS or len(above) != 1:
            return None
        handle = above[0]
    return None


def _cross_entropy(handle: Any) -> Tensor | None:
    """Entropy of the labels in nats, corrected for the batch's size (Miller and Madow, 1955)."""
    if handle._saved_weight is not None or handle._saved_reduction == 0:
        return None
    target = handle._saved_target
    labels = target[target != handle._saved_ignore_index]
    if labels.numel() == 0:
        return None
    counts = torch.bincount(labels.reshape(-1)).double()
    counts = counts[counts > 0]
    share = counts / counts.sum()
    entropy = -(share * share.log()).sum() + (counts.numel() - 1) / (2 * counts.sum())
    # never above the entropy of equal shares
    entropy = torch.minimum(
        entropy, torch.log(torch.tensor(float(handle._saved_self.shape[1]), dtype=torch.float64))
    )
    return entropy * (labels.numel() if handle._saved_reduction == 2 else 1)


def _squared_error(handle: Any) -> Tensor | None:
    """Variance of the targets about their mean (per feature), unbiased over the batch."""
    target, reduction = handle._saved_target, handle._saved_reduction
    if reduction == 0 or target.shape[0] < 2:
        return None
    variance = target.double().var(dim=0, unbiased=True)
    value: Tensor = variance.sum() * target.shape[0] if reduction == 2 else variance.mean()
    return value


def _binary_cross_entropy(handle: Any) -> Tensor | None:
    target = handle._saved_target.double()
    if handle._saved_weight is not None or handle._saved_reduction == 0:
        return None
    rate = target.reshape(target.shape[0], -1).mean(0).clamp(1e-9, 1 - 1e-9)
    entropy = -(rate * rate.log() + (1 - rate) * (1 - rate).log())
    value: Tensor = entropy.sum() * target.shape[0] if handle._saved_reduction == 2 else entropy.mean()
    return value


_READERS = {
    "NllLoss": _cross_entropy,
    "NllLoss2D": _cross_entropy,
    "MseLoss": _squared_error,
    "BinaryCrossEntropy": _binary_cross_entropy,
    "BinaryCrossEntropyWithLogits": _binary_cross_entropy,
}
