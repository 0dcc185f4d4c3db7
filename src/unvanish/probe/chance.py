"""The loss of the best constant guess, from the targets that the terms of a loss keep for their backward."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

# by name: what listens to the losses that a script asks for (launch/held_out.py) is not to hear ours
from torch.nn.functional import huber_loss, smooth_l1_loss

from unvanish.probe.kinds import plain_name
from unvanish.schema.graph import OperationStats

_SCALAR_STEPS = frozenset(("Mul", "Div", "Mean", "Sum", "View", "Squeeze", "Clone", "ToCopy", "Alias"))
_SAME_ORDER = frozenset(("View", "UnsafeView", "Squeeze", "Unsqueeze", "Alias", "Clone", "Select", "Slice"))
MOST_TERMS = 64  # of one loss: the time steps of a loop, the heads of a net
_DEEP = 8  # operations between the loss and a term, or a prediction and its residual


@dataclass(frozen=True, slots=True)
class Targets:
    """What must be known of the targets of one term, in numbers that add up over batches.

    `number` is autograd's sequence number of the loss operation. `moments` (float64): for "classes" the (weighted)
    count of each label; for "values" rows of [count, sum, sum of squares], one column per feature; for "bits" rows of
    [weight of those that are not one, weight of the ones, count]; for "deviations" [loss of the batch's median,
    elements]. `summed`: the loss is a sum over the elements, not their mean. Nothing here waits for a device.
    """

    number: int
    kind: str
    moments: Tensor
    summed: bool = False
    batches: int = 1


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a module gave to the script: the sequence number of the operation that made it, and its values."""

    number: int
    values: Tensor  # detached
    version: int


Reader = Callable[[Any, Mapping[int, Prediction]], Targets | None]  # of an operation, with what modules gave


def prediction_of(output: Tensor) -> Prediction | None:
    """For a tensor that wants gradients."""
    handle: Any = output.grad_fn
    return None if handle is None else Prediction(handle._sequence_nr(), output.detach(), output._version)


def merged(before: tuple[Targets, ...], now: tuple[Targets, ...]) -> tuple[Targets, ...]:
    """The targets of all batches so far; anew where the loss has changed."""
    if [_like(t) for t in before] != [_like(t) for t in now]:
        return now
    return tuple(
        replace(new, moments=old.moments + new.moments, batches=old.batches + 1)
        for old, new in zip(before, now, strict=True)
    )


def _like(targets: Targets) -> tuple[str, tuple[int, ...]]:
    return targets.kind, tuple(targets.moments.shape)


def guess(targets: Targets) -> float:
    """The loss of the best constant prediction for these targets, in the units of the loss function.

    NaN where all labels were ignored. Reads from the device: for the writer's thread.
    """
    moments = targets.moments.tolist()
    if targets.kind == "deviations":
        value, elements = float(moments[0] / targets.batches), float(moments[1])
    else:
        elements = (
            sum(moments) if targets.kind == "classes" else sum(moments[-1 if targets.kind == "bits" else 0])
        )
        if not elements:
            return math.nan
        value = _GUESSES[targets.kind](moments)
    return float(value * elements / targets.batches if targets.summed else value)


def chance_loss(
    targets: Sequence[Targets], at: Sequence[int | None], stats: Sequence[OperationStats]
) -> float | None:
    """The loss of the best constant predictions: of each term, times what the script multiplied it by.

    `at` are the terms' places in `stats`, those of the operations of the backward pass; the gradient that arrives at
    a term is that factor.
    """
    value = 0.0
    for one, index in zip(targets, at, strict=True):
        if index is None or not stats[index].count:
            return None
        # of the mean over n elements each gets 1/n, and all together a norm of 1/sqrt(n)
        value += guess(one) * stats[index].norm * math.sqrt(stats[index].count)
    return value if math.isfinite(value) and value > 0 else None


def targets_of(loss: Tensor, predictions: Sequence[Prediction] = ()) -> tuple[Targets, ...]:
    """The targets of the terms of a loss: cross-entropies, squared and absolute errors; () where one is not known.

    A sum of terms, each perhaps times a number, of which all are known: then the gradient that arrives at a term is
    that number, and the caller multiplies its guess by it. `predictions` are needed for errors that are written by
    hand, (output - target)**2: what is saved there is their difference.
    """
    ahead, found = [(loss.grad_fn, 0)], list[Targets]()
    known = {p.number: p for p in predictions}
    while ahead:
        handle, deep = ahead.pop()
        if handle is None or deep > _DEEP + len(found) or len(found) > MOST_TERMS:
            return ()
        name = plain_name(handle.name())
        reader = _READERS.get(name) or _reader_by_hand(name, handle)
        if reader is not None:
            try:
                with torch.no_grad():
                    term = reader(handle, known)
            except Exception:  # targets that were freed, packed away or changed in place: not known
                return ()
            if term is not None:
                found.append(term)
                continue
        above = [n for n, _ in handle.next_functions if n is not None]
        if (name == "Add" and len(above) == 2) or name in ("Stack", "Cat"):
            ahead += [(n, deep + 1) for n in above]
        elif name in _SCALAR_STEPS and len(above) == 1 and _by_a_number(handle):
            ahead.append((above[0], deep + 1))
        else:
            return ()
    return tuple(found[::-1])


def _by_a_number(handle: Any) -> bool:
    """Whether a product or quotient is by one number: by a mask, the elements would not count alike."""
    factors = (getattr(handle, name, None) for name in ("_saved_other", "_saved_self"))
    return all(f.numel() == 1 for f in factors if isinstance(f, Tensor))


def _reader_by_hand(name: str, handle: Any) -> Reader | None:
    """For an error that is written with plain operations."""
    if name == "Abs":
        return partial(_by_hand, squared=False)
    if name == "Pow":
        exponent = getattr(handle, "_saved_exponent", None)
        return (
            partial(_by_hand, squared=True) if isinstance(exponent, int | float) and exponent == 2 else None
        )
    both = handle.next_functions
    twice = name == "Mul" and len(both) == 2 and both[0][0] is not None and both[0][0] is both[1][0]
    return partial(_by_hand, squared=True) if twice else None


def _by_hand(handle: Any, known: Mapping[int, Prediction], *, squared: bool) -> Targets | None:
    """An error of (prediction - target): the target is what is missing between the two."""
    below = handle.next_functions[0][0]
    if below is None or plain_name(below.name()) not in ("Sub", "Rsub"):
        return None
    sides = [n for n, _ in below.next_functions]
    if sum(s is not None for s in sides) != 1:
        return None
    difference = handle._saved_self
    made_by = next(s for s in sides if s is not None)
    prediction = _prediction(made_by, known)
    if prediction is None or prediction.numel() != difference.numel() or difference.is_complex():
        return None
    values = prediction.reshape(difference.shape)
    first = (plain_name(below.name()) == "Sub") == (sides[0] is not None)
    target = values - difference if first else values + difference
    number = handle._sequence_nr()
    return (
        _moments(number, target, summed=False) if squared else _deviations(number, target, None, summed=False)
    )


def _prediction(handle: Any, known: Mapping[int, Prediction]) -> Tensor | None:
    for _ in range(_DEEP):
        found = known.get(handle._sequence_nr())
        if found is not None:
            return found.values if found.values._version == found.version else None
        above = [n for n, _ in handle.next_functions if n is not None]
        if plain_name(handle.name()) not in _SAME_ORDER or len(above) != 1:
            return None
        handle = above[0]
    return None


def _classes(handle: Any, _: Mapping[int, Prediction]) -> Targets | None:
    labels, classes = handle._saved_target.reshape(-1), handle._saved_self.shape[1]
    # one bin more for those that are ignored: to take them out, or bincount(), would wait for the device
    bins = torch.where(labels == handle._saved_ignore_index, classes, labels)
    counts = torch.zeros(classes + 1, dtype=torch.float64, device=labels.device)
    counts.scatter_add_(0, bins, torch.ones_like(bins, dtype=torch.float64))
    weight = handle._saved_weight
    moments = counts[:classes] if weight is None else counts[:classes] * weight.double()
    return Targets(handle._sequence_nr(), "classes", moments, handle._saved_reduction == 2)


def _values(handle: Any, _: Mapping[int, Prediction]) -> Targets | None:
    target = handle._saved_target
    return (
        None
        if target.dim() == 0
        else _moments(handle._sequence_nr(), target, summed=handle._saved_reduction == 2)
    )


def _moments(number: int, target: Tensor, *, summed: bool) -> Targets:
    wide = _samples(target.double())
    count = torch.full_like(wide[0], wide.shape[0])
    return Targets(number, "values", torch.stack((count, wide.sum(0), wide.square().sum(0))), summed)


def _samples(target: Tensor) -> Tensor:
    """[samples, features]; the time steps of the one sequence that there is are samples."""
    if target.dim() > 2 and target.shape[0] == 1:
        return target.reshape(-1, target.shape[-1])
    return target.reshape(target.shape[0], -1) if target.dim() else target.reshape(1, 1)


def _robust(handle: Any, _: Mapping[int, Prediction]) -> Targets | None:
    target, huber = handle._saved_target, hasattr(handle, "_saved_delta")
    if target.dim() == 0:
        return None
    scale = float(handle._saved_delta if huber else handle._saved_beta)
    return _deviations(handle._sequence_nr(), target, (huber, scale), summed=handle._saved_reduction == 2)


def _deviations(number: int, target: Tensor, kink: tuple[bool, float] | None, *, summed: bool) -> Targets:
    """Of the batch's median; `kink`: (whether it is Huber's loss, its width), None = absolute errors."""
    wide = _samples(target.double())
    middle = wide.median(0).values.expand_as(wide)
    if kink is None:
        value = (wide - middle).abs().mean()
    elif kink[0]:
        value = huber_loss(wide, middle, delta=kink[1])
    else:
        value = smooth_l1_loss(wide, middle, beta=kink[1])
    fitted = wide.shape[0] / max(1, wide.shape[0] - 1)  # the median was chosen to fit these very samples
    return Targets(
        number, "deviations", torch.stack((value * fitted, torch.full_like(value, wide.numel()))), summed
    )


def _bits(handle: Any, _: Mapping[int, Prediction]) -> Targets | None:
    if handle._saved_weight is not None:
        return None
    target = handle._saved_target
    wide = _samples(target.double())
    count = torch.full_like(wide[0], wide.shape[0])
    ones = wide.sum(0)
    weight = getattr(handle, "_saved_pos_weight", None)
    weighted = ones if weight is None else (wide * weight.double()).sum(0)
    return Targets(
        handle._sequence_nr(),
        "bits",
        torch.stack((count - ones, weighted, count)),
        handle._saved_reduction == 2,
    )


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
    """Of each output at its best rate ones / (ones + others), by their weights; per element."""
    found = list[float]()
    for others, ones, count in zip(*moments, strict=True):
        rate = min(max(ones / max(ones + others, 1e-300), 1e-9), 1 - 1e-9)
        found.append(-(ones * math.log(rate) + others * math.log(1 - rate)) / count)
    return sum(found) / max(1, len(found))


_READERS: dict[str, Reader] = {
    "NllLoss": _classes,
    "NllLoss2D": _classes,
    "MseLoss": _values,
    "SmoothL1Loss": _robust,
    "HuberLoss": _robust,
    "BinaryCrossEntropy": _bits,
    "BinaryCrossEntropyWithLogits": _bits,
}
_GUESSES: dict[str, Callable[[Any], float]] = {"classes": _entropy, "values": _variance, "bits": _bit_entropy}
