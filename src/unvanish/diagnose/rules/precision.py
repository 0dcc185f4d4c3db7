"""Precision underflow: gradients, or steps, that are too small for the number format they are kept in."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import FEWEST, Facts, Profile
from unvanish.diagnose.path import Traced, layer_name, parameter_layer
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Evidence, Finding
from unvanish.schema.graph import EXPONENT_FLOOR, place
from unvanish.schema.run import ParameterInfo

HALF = ("float16", "bfloat16")
ROUNDED = 0.3  # of the elements change in a step: most of it is rounded away
HARDLY_ANY = 0.1  # the same, asked of a net whose loss creeps down all the same
ZEROS = 0.3  # of a gradient's elements are exact zeros
TINY = 1e-30  # of a loss: below, float32 itself ends
_SLOPED = (
    "MseLoss",
    "NllLoss",
    "NllLoss2D",
    "SmoothL1Loss",
    "HuberLoss",
)  # zero slope only where the loss is zero
SMALLEST_NORMAL = 2.0**-14  # of float16: below, digits are lost one after the other
FLOOR = {"float16": 2.0**-24}  # the smallest number that is not zero
NEAR_FLOOR = 2.0**10  # times the floor: a largest gradient below this is at the end of the format
_SOURCE = (
    "IEEE 754: below half the smallest number all is zero, and an update below half a spacing changes nothing"
)


def _check(facts: Facts) -> Iterable[Finding]:
    # a net that starts well below chance and stays where it is learns nothing either
    unchanged = facts.learning.learns and not facts.learning.fallen
    hardly = (facts.learning.hardly or unchanged) and facts.learning.steps >= FEWEST
    if not facts.stalled and not hardly:
        return
    weights = [p for p in facts.motion.weights if p.requires_grad]
    half = [p for p in weights if p.dtype in HALF]
    under = [p for p in half if _underflows(facts, p)]
    if under and not hardly:
        values = _medians(facts, "gradient_zeros", under)
        yield _finding(facts, under, "share of the gradient's elements that are exactly zero", values, ZEROS,
                       "gradients fall below the smallest number of {dtype}")  # fmt: skip
        return
    rounded = [p for p in half if _rounds(facts, p, HARDLY_ANY if hardly else ROUNDED)]
    if rounded and len(rounded) >= 0.5 * len(half):
        values = _medians(facts, "update_changed", rounded)
        yield _finding(facts, rounded, "share of the weights that a step changes at all", values, ROUNDED,
                       "steps are smaller than the spacing of {dtype} numbers and round away")  # fmt: skip
        return
    if not hardly or unchanged:
        yield from _signal_lost(facts) or ([] if unchanged else _signal_underflow(facts))


def _medians(facts: Facts, statistic: str, members: list[ParameterInfo]) -> list[float]:
    column = facts.motion.column(statistic)
    out = []
    for p in members:
        known = column[:, p.index][np.isfinite(column[:, p.index])]
        out.append(float(np.median(known)) if len(known) else float("nan"))
    return out


def _underflows(facts: Facts, parameter: ParameterInfo) -> bool:
    floor = FLOOR.get(parameter.dtype)
    if floor is None:
        return False
    zeros, largest = (_medians(facts, s, [parameter])[0] for s in ("gradient_zeros", "gradient_absmax"))
    return zeros > ZEROS and largest < NEAR_FLOOR * floor


def _rounds(facts: Facts, parameter: ParameterInfo, few: float) -> bool:
    """A step is asked for (the gradient is there), and most weights do not change."""
    changed, zeros = (_medians(facts, s, [parameter])[0] for s in ("update_changed", "gradient_zeros"))
    return changed < few and zeros < 0.9


def _signal_lost(facts: Facts) -> list[Finding]:
    """All of the signal is gone where it is cast, or at the loss itself, whose slope is not zero where it is not."""
    found = [_emptied(p) for p in facts.recent]
    if not found or not all(found):
        return []
    profile, (where, what) = facts.recent[-1], found[-1]  # type: ignore[misc]
    layer = profile.layers[-1].layer
    return [
        Finding(
            kind="precision_underflow",
            cause="low_precision",
            severity="critical",
            confidence=0.93,
            layers=tuple(dict.fromkeys(s.layer for s in profile.layers[::-1])),
            first_step=facts.recent[0].step,
            summary=f"of the gradient, {what} at {where}, nothing but zeros is left in the number format behind it; "
            f"{facts.learning.sentence}.",
            evidence=(
                Evidence(layer=layer, statistic="share of the backprop signal that is exactly zero", value=1.0,
                         threshold=ZEROS, steps=(facts.recent[0].step, profile.step), source=_SOURCE),
            ),
            treatments=TREATMENTS["low_precision"],
        )
    ]  # fmt: skip


def _emptied(profile: Profile) -> tuple[str, str] | None:
    """(where, rms of what came there): a cast or a loss that hands back exact zeros of what is not zero."""
    traced = profile.traced
    if abs(traced.trace.loss) < TINY:
        return None
    for operation, stats in zip(traced.operations, traced.stats, strict=True):
        by_number = operation.name in ("Mul", "Div") and len(operation.parents) == 1
        by_loss = operation.kind == "loss" and operation.name in _SLOPED
        if not (operation.name == "ToCopy" or by_loss or (by_number and _in_half(traced, operation.index))):
            continue
        if not math.isfinite(stats.norm) or not traced.swallows(operation.index):
            continue
        if len(traced.consumers[operation.parents[0]]) == 1:
            rms = stats.norm / math.sqrt(max(1, stats.count))
            if by_number and rms > SMALLEST_NORMAL:
                continue  # it is the number that is zero
            where = (
                "the cast" if operation.name == "ToCopy" else "the loss" if by_loss else "a multiplication"
            )
            return where, f"{rms:.1g} in size"
    return None


def _in_half(traced: Traced, index: int) -> bool:
    """Whether what an operation gives is cast to another format straight behind it."""
    return any(traced.operations[user].name == "ToCopy" for user, _ in traced.consumers[index])


def _signal_underflow(facts: Facts) -> Iterable[Finding]:
    """The signal itself is kept in half precision (autocast): zeros, and the rest piles up at the format's end."""
    if not facts.recent or not any(o.name == "ToCopy" for o in facts.recent[-1].traced.operations):
        return  # nothing is cast to another format
    found = [_floored(p) for p in facts.recent]
    if not all(found):
        return
    index, share = found[-1]  # type: ignore[misc]
    profile = facts.recent[-1]
    layer = layer_name(profile.traced.operations[index])
    yield Finding(
        kind="precision_underflow",
        cause="low_precision",
        severity="critical",
        confidence=0.85,
        layers=(layer,),
        first_step=facts.recent[0].step,
        summary=f"{share:.0%} of the signal at {place(layer)} is exactly zero, and what is left ends at 2^-24, "
        f"float16's smallest number; {facts.learning.sentence}.",
        evidence=(
            Evidence(layer=layer, statistic="share of the backprop signal that is exactly zero", value=share,
                     threshold=ZEROS, steps=(facts.recent[0].step, profile.step), source=_SOURCE),
        ),
        treatments=TREATMENTS["low_precision"],
    )  # fmt: skip


def _floored(profile: Profile) -> tuple[int, float] | None:
    lowest = (-24 - EXPONENT_FLOOR) // 2
    for signal in profile.layers:
        stats = profile.traced.stats[signal.operation]
        if not stats.exponents or not stats.count:
            continue
        share = stats.zeros / stats.count
        held = sum(stats.exponents)
        tail = sum(stats.exponents[lowest : lowest + 3])
        if share > ZEROS and held and not sum(stats.exponents[:lowest]) and tail > 0.5 * held:
            return signal.operation, share
    return None


def _finding(
    facts: Facts,
    members: list[ParameterInfo],
    statistic: str,
    values: list[float],
    threshold: float,
    words: str,
) -> Finding:
    layers = tuple(dict.fromkeys(parameter_layer(p.name) for p in members))
    steps = facts.model.parameter_steps
    return Finding(
        kind="precision_underflow",
        cause="low_precision",
        severity="critical",
        confidence=0.9,
        layers=layers,
        first_step=0,
        summary=f"in {place(layers[0])} {words.format(dtype=members[0].dtype)}; {facts.learning.sentence}.",
        evidence=tuple(
            Evidence(layer=p.name, statistic=statistic, value=v, threshold=threshold,
                     steps=(steps[0], steps[-1]), source=_SOURCE)
            for p, v in list(zip(members, values, strict=True))[:5]
        ),
        treatments=TREATMENTS["low_precision"],
    )  # fmt: skip


RULE = Rule(
    kind="precision_underflow",
    check=_check,
    why="A number format has a smallest number and a spacing: what is below them is lost without a trace.",
    wrong_when="Gradients that are sparse by nature in a half-precision net that is stuck for another reason.",
    source=_SOURCE,
)
