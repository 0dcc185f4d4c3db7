"""Which factors of a product are to blame, in one sentence with their numbers, and what to change, in another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unvanish.present import words
from unvanish.present.waterfall import TRIVIAL, power
from unvanish.schema.chain import Chain, Factor, Recurrence
from unvanish.schema.graph import place

FAR_OFF = 5  # times: so far from theory, a norm's own scale is not the usual one
_GATES = ("Relu", "Threshold", "Hardtanh")


def blame_sentence(chain: Chain) -> str:
    """Which factors are to blame, with their numbers; or that none is."""
    stop = next((f for f in chain.factors if not f.gain > 0), None)
    if stop is not None and stop.gain == 0:
        return _stop_sentence(stop)
    if not chain.output_norm > 0:
        return "no signal leaves the loss: it is at its minimum, or flat where the output lies."
    if chain.cause is None:
        if chain.last_factor == 0 and chain.signal_norm > 0:
            return f"none of the factors: what enters {place(chain.layer)} is zero, and so is the gradient."
        return (
            "none of the factors: what arrives is within a factor of 20 (e^3) of what left, "
            "the layers' own scales allowed for."
        )
    cause = (
        words.CAUSE_WORDS[chain.cause]
        if chain.cause != "unknown"
        else "operations that are none of the usual kinds"
    )
    if chain.cause == "recurrence" and chain.recurrences:
        clearest = max(chain.recurrences, key=_lost)
        if _lost(clearest) > 1.0:
            return f"{cause}: {_forgetting(clearest)}"
    worst = _worst(chain)
    if not worst:
        return f"{cause}: many factors take a little each."
    return f"{cause}: {_group_sentence(worst)}"


def mend_sentence(chain: Chain) -> str:
    """What to change."""
    stop = next((f for f in chain.factors if not f.gain > 0), None)
    if stop is not None and stop.gain == 0:
        if stop.name in _GATES:
            return (
                "Use LeakyReLU, lower the learning rate, and start the biases anew; a batch norm before it "
                "opens units, too."
            )
        if stop.kind == "weight":
            return "Nothing, if it starts at zero on purpose and moves at the first step; else initialise it."
        return "Look at this operation: it hands nothing back."
    if chain.cause is None:
        return "Nothing on this way."
    if chain.cause == "unknown" and (group := _worst(chain)):
        worst = min(group, key=lambda f: f.decades)
        return (
            f"Look at {words.factor_label(worst)} first: what enters it lies where it is flat. Smaller weights "
            "before it, a norm, or another function there help."
        )
    advice = [words.ADVICE[name] for name in chain.treatments[:3]]
    if not advice:
        return "There is no standard treatment for this one."
    return f"{words.capital('; or '.join(advice))}. Then `unvanish explain` shows what it brought."


def cancels(factor: Factor) -> bool:
    """Whether the ways that meet at a sum undo one another."""
    return factor.kind == "skip" and factor.name.startswith("sum") and factor.gain < 0.5


def _lost(recurrence: Recurrence) -> float:
    """How many decades lie between the last time step and the first, either way."""
    first, last = recurrence.steps[0].signal_norm, recurrence.steps[-1].signal_norm
    if not (math.isfinite(first) and math.isfinite(last)) or last <= 0:
        return 0.0
    return abs(math.log10(first / last)) if first > 0 else math.inf


def _forgetting(recurrence: Recurrence) -> str:
    steps = recurrence.steps
    first, last, gain = steps[0].signal_norm, steps[-1].signal_norm, recurrence.gain_per_step
    layer = place(recurrence.layer) or "the recurrent layer"
    if gain is None:
        return f"nothing is left of the signal at the first of {len(steps)} time steps of {layer}."
    verb = "lose" if first < last else "gain"
    return (
        f"each time step back through {layer} multiplies the signal by {words.plain(gain, 2)}, and "
        f"{len(steps)} of them {verb} {_lost(recurrence):.1f} decades."
    )


def _stop_sentence(stop: Factor) -> str:
    where = words.factor_label(stop)
    if stop.name in _GATES:
        return f"{where}: no unit that the signal comes to is open for any sample. It is dead, and nothing passes."
    if stop.kind == "weight":
        return f"{where}: its weight is zero where the signal arrives, so nothing passes until it has moved."
    return f"{where} passes nothing on."


def _worst(chain: Chain) -> list[Factor]:
    """The kind of factor that takes (or gives) most, all of it."""
    sign = -1.0 if chain.decades < 0 else 1.0
    kinds: dict[str, list[Factor]] = {}
    for factor in chain.factors:
        if not abs(factor.decades) < TRIVIAL:
            kinds.setdefault(factor.kind, []).append(factor)
    blamed = _BLAMED.get(chain.cause or "")
    if blamed in kinds and sum(f.decades for f in kinds[blamed]) * sign > 0:
        return kinds[blamed]
    ranked = sorted(kinds.values(), key=lambda fs: -sign * sum(f.decades for f in fs))
    return ranked[0] if ranked and sign * sum(f.decades for f in ranked[0]) > 0.05 else []


_BLAMED = {
    "saturating_activation": "activation",
    "init_too_small": "weight",
    "attention_saturation": "softmax",
    "normalization": "norm",
    "unknown": "other",
}


def _group_sentence(group: Sequence[Factor]) -> str:
    total = sum(f.decades for f in group)
    names = [f.name for f in group]
    name = max(sorted(set(names)), key=names.count)
    each = power(total / len(group))
    thing = {"activation": f"{name} derivative", "weight": "weight", "norm": "norm", "skip": "sum"}.get(
        group[0].kind, name
    )
    many = f"{len(group)} {thing}s" if len(group) > 1 else f"one {thing}"
    verb = "take" if total < 0 else "give"
    said = f"{many} {verb if len(group) > 1 else verb + 's'} {abs(total):.1f} decades"
    said += f", {words.plain(each, 2)} each" if len(group) > 1 else f", a gain of {words.plain(each, 2)}"
    bounds = [f.bound for f in group if f.bound is not None]
    if group[0].kind == "activation" and len(bounds) == len(group) and max(bounds) < 1:
        best = sum(math.log10(b) for b in bounds)
        said += f" (none can pass more than {words.plain(max(bounds), 2)}: {abs(best):.1f} decades are lost at best)"
    expected = [f.predicted for f in group if f.predicted is not None]
    if len(expected) * 2 > len(group):
        mean = math.exp(sum(math.log(p) for p in expected if p > 0) / len(expected)) if all(expected) else 0.0
        said += f"; theory expects {words.plain(mean, 2)} of each at this initialisation"
        if group[0].kind == "norm" and each < mean / FAR_OFF:
            said += " and with a scale of 1: look at the norms' own weights, which are small"
    worst = min(group, key=lambda f: f.decades) if total < 0 else max(group, key=lambda f: f.decades)
    if len(group) > 1 and abs(worst.decades) > 2 * abs(total) / len(group) + 0.3:
        said += f"; most at {words.factor_label(worst)} ({words.plain(worst.gain, 2)})"
    if any(cancels(f) for f in group):
        said += "; the ways that meet there cancel"
    return said + "."
