"""Uninformative data, seen at the net's entry: inputs that are all the same, or of sizes that no one rate fits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from unvanish.diagnose.causes import TREATMENTS, cause_of_loss
from unvanish.diagnose.facts import FEWEST, THRESHOLD, Facts
from unvanish.diagnose.path import decades, layer_name
from unvanish.diagnose.rule import Rule
from unvanish.schema.architecture import LayerSpec
from unvanish.schema.finding import Attribution, Evidence, Finding, Kind
from unvanish.schema.graph import place

EQUAL = 1e-10  # of it, which is what float32 leaves of nothing
SOME = 1e-3  # of it
SAME = 1e-4  # of the input's mean square differs between samples
LARGE = 30.0  # rms of the input
MOST = -1.0  # decades that one activation takes: a sigmoid in its middle takes 0.6
_BOUNDED = ("Sigmoid", "Tanh", "Hardtanh", "Hardsigmoid", "Softsign", "Sin", "Erf", "Atan")
_SOURCE = "LeCun et al. 1998, Efficient BackProp, 4.3: inputs centred, scaled and different from one another"


def _check(facts: Facts) -> Iterable[Finding]:
    hardly = facts.learning.hardly and facts.learning.steps >= FEWEST
    if not (facts.stalled or hardly) or not facts.model.architecture:
        return
    entry = facts.model.architecture[0]
    if _cut_before(facts, entry):
        return  # what it gets is made by weights before it, which have ceased to answer
    known = [s.input_variety for s in facts.model.architecture if s.input_variety is not None]
    alike = entry.input_variety if all(v < SAME for v in known) else None
    if facts.stalled and alike is not None and not _behind_a_recurrence(facts):
        seen = Evidence(layer=entry.name, statistic="share of the input's mean square that differs between samples",
                        value=alike, threshold=SAME, steps=(0, 0), source=_SOURCE)  # fmt: skip
        yield _finding(facts, entry, seen, "gets the same input for every sample", 0.93)
        return
    size = (entry.input_second_moment or 0.0) ** 0.5
    if size > LARGE:
        seen = Evidence(layer=entry.name, statistic="rms of the input", value=size, threshold=LARGE, steps=(0, 0),
                        source=_SOURCE)  # fmt: skip
        words = f"gets inputs of size {size:.3g}; scale them to about 1"
        if (flat := _flattened(facts, entry)) is not None:
            yield _saturated(facts, entry, seen, words, flat)
        elif (harm := _harm(facts)) is not None:
            yield replace(_finding(facts, entry, seen, f"{words}: {harm.words}", 0.85), kind=harm.kind,
                          attribution=harm.attribution)  # fmt: skip
        else:
            yield _finding(facts, entry, seen, words, 0.75)
    elif facts.stalled and (behind := _alike_behind(facts)) is not None:
        last, variety = behind
        seen = Evidence(layer=last.name, statistic="share of the input's mean square that differs between samples",
                        value=variety, threshold=EQUAL, steps=(0, 0), source=_SOURCE)  # fmt: skip
        words = "gets the same from every sample, though samples differ before it: what tells them apart is left out"
        yield _finding(facts, last, seen, f"{words} on the way (a mask, an index, a mean)", 0.8)


@dataclass(frozen=True, slots=True)
class Harm:
    """What inputs that are far too large have done to the net by now."""

    kind: Kind
    words: str
    attribution: Attribution = field(default_factory=Attribution)


def _harm(facts: Facts) -> Harm | None:
    """Units that are all closed, or a signal that does not come back, of late; None: neither."""
    if not facts.recent:
        return None
    entries = [p.entry for p in facts.recent]
    last = facts.recent[-1]
    if all(e == -math.inf for e in entries):
        closed = (
            layer_name(o)
            for o, s in zip(last.traced.operations, last.traced.stats, strict=True)
            if s.units and s.closed_units == s.units
        )
        where = next(closed, None)
        if where is not None:
            return Harm("dead_units", f"all units of {place(where)} have closed")
    if all(e < THRESHOLD for e in entries):
        _, parts, _ = cause_of_loss(last.traced, last.layers[0].operation)
        gone = "nothing" if entries[-1] == -math.inf else f"10^{entries[-1]:.1f}"
        return Harm("vanishing_gradients", f"{gone} of the signal comes back to it", parts)
    return None


def _alike_behind(facts: Facts) -> tuple[LayerSpec, float] | None:
    """(the last layer, how much its input differs between samples): nothing, from the start, where others' do."""
    if not facts.recent or not facts.recent[-1].entry > THRESHOLD:
        return None  # a signal that is lost on the way has its own rules
    known = [s for s in facts.model.architecture if s.input_variety is not None]
    varied = [s for s in known if s.input_variety > SOME]  # type: ignore[operator]
    last = known[-1] if known else None
    if last is None or not varied or last.input_variety > EQUAL:  # type: ignore[operator]
        return None
    # one layer after another loses a little where a net is too deep; here it is lost all at once
    between = [s for s in known if EQUAL < s.input_variety <= SOME]  # type: ignore[operator]
    return None if between else (last, last.input_variety)  # type: ignore[return-value]


def _behind_a_recurrence(facts: Facts) -> bool:
    """Whether the first layer whose input was looked at comes behind a fused recurrent one: that is not described."""
    traced = facts.profiles[-1].traced if facts.profiles else None
    operations = traced.operations if traced is not None else ()
    first = next((o for o in operations if o.kind == "weight"), None)
    return first is not None and first.name.endswith(("RnnLayer", "Rnn"))


def _cut_before(facts: Facts, entry: LayerSpec) -> bool:
    """Whether the first layer whose input was looked at is fed by other weights, and hands nothing back to them."""
    traced = facts.profiles[-1].traced if facts.profiles else None
    own = [o for o in (traced.operations if traced is not None else ()) if layer_name(o) == entry.name]
    first = next((o for o in own if o.kind == "weight"), None)
    if traced is None or first is None:
        return False
    before = [
        o
        for o in traced.operations[: first.index]
        if any(o.parameters) and traced.follows(o.index, first.index)
    ]
    return bool(before) and all(traced.stats[o.index].norm == 0 for o in before)


def _flattened(facts: Facts, entry: LayerSpec) -> float | None:
    """Decades of signal that the bounded activation behind the first layer takes, where that is most of it."""
    if not facts.recent:
        return None
    lost = []
    for profile in facts.recent:
        traced = profile.traced
        first = next((i for i in traced.weighted() if layer_name(traced.operations[i]) == entry.name), None)
        ahead = [] if first is None else [u for u, _ in traced.consumers[first]]
        if len(ahead) != 1 or traced.operations[ahead[0]].name not in _BOUNDED:
            return None
        lost.append(decades(traced.stats[first].norm, traced.stats[ahead[0]].norm))  # type: ignore[index]
    return max(lost) if max(lost) < MOST else None


def _saturated(facts: Facts, entry: LayerSpec, seen: Evidence, words: str, flat: float) -> Finding:
    lost = max(flat, -300.0)
    return Finding(
        kind="vanishing_gradients",
        cause="inputs",
        severity="critical",
        confidence=0.85,
        layers=(entry.name,),
        first_step=facts.recent[0].step,
        summary=f"{place(entry.name)} {words}: the activation behind it is saturated and takes {-lost:.1f} decades "
        f"of the signal; {facts.learning.sentence}.",
        evidence=(seen,),
        attribution=Attribution(activation=lost),
        treatments=TREATMENTS["inputs"],
    )


def _finding(facts: Facts, entry: LayerSpec, seen: Evidence, words: str, confidence: float) -> Finding:
    return Finding(
        kind="uninformative_data",
        cause="inputs",
        severity="critical",
        confidence=confidence,
        layers=(entry.name,),
        first_step=0,
        summary=f"{place(entry.name)} {words}; {facts.learning.sentence}.",
        evidence=(seen,),
        treatments=TREATMENTS["inputs"],
    )


RULE = Rule(
    kind="uninformative_data",
    check=_check,
    why="What does not differ between samples can't tell them apart, and features of very different sizes can't "
    "all be learned with one learning rate.",
    wrong_when="A net that learns to be a constant on purpose; inputs that a norm layer rescales first.",
    source=_SOURCE,
)
