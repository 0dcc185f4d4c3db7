"""The loss of the best constant guess, from the targets that a plain loss function keeps for its backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unvanish.probe.kinds import plain_name

_SCALAR_STEPS = frozenset(("Mul", "Div", "Mean", "Sum", "View", "Squeeze", "Clone", "ToCopy", "Alias"))


@dataclass(frozen=True, slots=True)
class Targets:
    """What must be known of the targets, in numbers that add up over batches.

    `number` is autograd's sequence number of the loss operation. `moments` (float64): for "classes" the count of
    each label; for "values" rows of [count, sum, sum of squares], one column per feature; for "bits" rows of
    [count, ones]. `summed`: the loss is a sum over the elements, not their mean. Nothing here waits for a device.
    """

    number: int
    kind: str
    moments: Tensor
    summed: bool
    batches: int = 1


def merged(before: Targets | None, now: Targets) -> Targets:
    """The targets of all batches so far; anew where the loss has changed."""
    if before is None or before.kind != now.kind or before.moments.shape != now.moments.shape:
        return now
    return replace(now, moments=before.moments + now.moments, batches=before.batches + 1)


def guess(targets: Targets) -> float:
    """The loss of the best constant prediction for these targets, in the units of the loss function.

    NaN where all labels were ignored. Reads from the device: for the writer's thread.
    """
    moments = targets.moments.tolist()
    elements = sum(moments) if targets.kind == "classes" else sum(moments[0])
    if not elements:
        return math.nan
    return _GUESSES[targets.kind](moments) * (elements / targets.batches if targets.summed else 1)


def targets_of(loss: Tensor) -> Targets | None:
    """The targets of a plain cross-entropy or squared error; None everywhere else.

    Only where the loss is that one term, perhaps times a number: then the gradient that arrives at the operation
    is that number, and the caller multiplies the guess by it.
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
                    return reader(handle)
            except Exception:  # targets that were freed, packed away or changed in place: not known
                return None
        above = [n for n, _ in handle.next_functions if n is not None]
        if name not in _SCALAR_STEPS or len(above) != 1:
            return None
        handle = above[0]
    return None


def _classes(handle: Any) -> Targets | None:
    if handle._saved_weight is not None or handle._saved_reduction == 0:
        return None
    labels, classes = handle._saved_target.reshape(-1), handle._saved_self.shape[1]
    # one bin more for those that are ignored: to take them out, or bincount(), would wait for the device
    bins = torch.where(labels == handle._saved_ignore_index, classes, labels)
    counts = torch.zeros(classes + 1, dtype=torch.float64, device=labels.device)
    counts.scatter_add_(0, bins, torch.ones_like(bins, dtype=torch.float64))
    return Targets(handle._sequence_nr(), "classes", counts[:classes], handle._saved_reduction == 2)


def _values(handle: Any) -> Targets | None:
    target = handle._saved_target
    if handle._saved_reduction == 0 or target.dim() == 0:
        return None
    wide = target.double().reshape(target.shape[0], -1)
    count = torch.full_like(wide[0], wide.shape[0])
    moments = torch.stack((count, wide.sum(0), wide.square().sum(0)))
    return Targets(handle._sequence_nr(), "values", moments, handle._saved_reduction == 2)


def _bits(handle: Any) -> Targets | None:
    if handle._saved_weight is not None or handle._saved_reduction == 0:
        return None
    target = handle._saved_target
    wide = target.double().reshape(target.shape[0], -1)
    moments = torch.stack((torch.full_like(wide[0], wide.shape[0]), wide.sum(0)))
    return Targets(handle._sequence_nr(), "bits", moments, handle._saved_reduction == 2)


def _entropy(counts: list[float]) -> float:
    """Entropy of the labels in nats, corrected for the number of samples (Miller and Madow, 1955)."""
    total = sum(counts)
    present = [c / total for c in counts if c > 0]
    entropy = -sum(p * math.log(p) for p in present) + (len(present) - 1) / (2 * total)
    return min(entropy, math.log(max(2, len(counts))))


def _variance(moments: list[list[float]]) -> float:
    """Variance about the mean, per feature; unbiased."""
    found = [
        max(0.0, squares - total * total / count) / (count - 1)
        for count, total, squares in zip(*moments, strict=True)
        if count > 1
    ]
    return sum(found) / len(found) if found else math.nan


def _bit_entropy(moments: list[list[float]]) -> float:
    rates = [min(max(ones / count, 1e-9), 1 - 1e-9) for count, ones in zip(*moments, strict=True)]
    entropy = -sum(r * math.log(r) + (1 - r) * math.log(1 - r) for r in rates)
    return float(entropy) / max(1, len(rates))


_READERS: dict[str, Callable[[Any], Targets | None]] = {
    "NllLoss": _classes,
    "NllLoss2D": _classes,
    "MseLoss": _values,
    "BinaryCrossEntropy": _bits,
    "BinaryCrossEntropyWithLogits": _bits,
}
_GUESSES: dict[str, Callable[[Any], float]] = {"classes": _entropy, "values": _variance, "bits": _bit_entropy}
