"""Vanishing through a saturated softmax: attention that looks at one place only gives queries and keys nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from unvanish.diagnose.causes import SOFTMAXES, TREATMENTS, attends_by, attribution_to
from unvanish.diagnose.facts import FEWEST, Facts, Profile
from unvanish.diagnose.path import Traced, decades, is_weight, layer_name
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Evidence, Finding
from unvanish.schema.graph import place

# Decades. A softmax over n equal entries hands back 1/n of what it gets (its Jacobian is (I - 1/n)/n), and does so
# batch after batch; a one-hot one hands back what the rare undecided rows hold, which differs from batch to batch.
NOTHING = -4.0  # decades: less than this on the median is no uniform softmax's
LITTLE = -2.0  # decades: less than this, where it is erratic
ERRATIC = 1.0  # between the lower and the upper quarter of the traces
GONE = -300.0  # decades: exact zeros
LATELY = 6  # traces
FEW = 4  # traces that the quarters are taken of
EARLY = 8  # traces
NARROW = -0.7  # decades, where the weights of the scores are far too large as well
POOR = 0.75  # of the chance loss: what is learned beside the attention gets the loss down a little
_SOURCE = (
    "Vaswani et al. 2017, 3.2.1: large products push the softmax to where its gradient is next to nothing"
)


def _check(facts: Facts) -> Iterable[Finding]:
    learning = facts.learning
    poor = (
        learning.chance is not None and learning.last is not None and learning.last > POOR * learning.chance
    )
    if not (facts.stalled or (poor and learning.steps >= FEWEST)) or not facts.recent:
        return
    gains: dict[tuple[str, int], list[float]] = {}
    for profile in facts.profiles:
        for key, gain in softmax_gains(profile).items():
            gains.setdefault(key, []).append(gain)
    # From the start on: later on the gain also falls where all values have become alike, which is no saturation.
    shut = {k: statistics.median(v) for k, v in gains.items() if _shut(v) and _shut(v[:EARLY])}
    if facts.stalled:  # exact zeros are no matter of values that are alike
        shut |= {k: statistics.median(v[-LATELY:]) for k, v in gains.items() if _one_hot_by_now(v)}
    last = facts.recent[-1]
    named = {(layer_name(o), o.call): o.index for o in last.traced.operations if _is_attention(last, o.index)}
    shut = {key: gain for key, gain in shut.items() if key in named}
    shut = shut or _wide(facts, {k: statistics.median(v) for k, v in gains.items() if k in named}, named)
    if not shut:
        return
    worst = min(shut, key=lambda key: shut[key])
    layers = _scorers(last.traced, named[worst])
    parts = (
        attribution_to(last.traced, layers[-1][0]) if layers else attribution_to(last.traced, named[worst])
    )
    where = facts.profiles[0].step
    yield Finding(
        kind="vanishing_gradients",
        cause="attention_saturation",
        severity="critical",
        confidence=0.8 if learning.unmoved else 0.7,
        layers=tuple(dict.fromkeys(name for _, name in layers)) or (worst[0],),
        first_step=where,
        summary=f"the softmax in {place(worst[0])} is one-hot: it hands back 10^{shut[worst]:.1f} of the signal it "
        f"gets, so what decides where to look can't learn; {learning.sentence}.",
        evidence=tuple(
            Evidence(layer=name, statistic="gain of the softmax, log10, the median over the traces", value=gain,
                     threshold=LITTLE, steps=(where, last.step), source=_SOURCE)
            for (name, _), gain in sorted(shut.items(), key=lambda pair: pair[1])[:5]
        ),
        attribution=parts,
        treatments=TREATMENTS["attention_saturation"],
    )  # fmt: skip


def _wide(
    facts: Facts, gains: dict[tuple[str, int], float], named: dict[tuple[str, int], int]
) -> dict[tuple[str, int], float]:
    """Softmaxes that pass little, and whose scores come from weights that were drawn far too large."""
    traced = facts.recent[-1].traced
    found = {}
    for key, gain in gains.items():
        scorers = {
            p
            for index, _ in _scorers(traced, named[key])
            for p in traced.operations[index].parameters
            if is_weight(p)
        }
        if scorers and scorers <= facts.wide_weights and gain < NARROW:
            found[key] = gain
    return found


def _is_attention(profile: Profile, index: int) -> bool:
    """A softmax inside the net: of the model's own, with weights both before and behind it or beside it."""
    traced, output = profile.traced, profile.traced.trace.output
    operation = traced.operations[index]
    inside = operation.module is not None and output is not None and index < output
    return inside and attends_by(operation.name)


def softmax_gains(profile: Profile) -> dict[tuple[str, int], float]:
    """Of each softmax by (place, call): decades from what comes back to it to what it hands on to the scores."""
    found: dict[tuple[str, int], float] = {}
    traced = profile.traced
    for operation, stats in zip(traced.operations, traced.stats, strict=True):
        if not _is_attention(profile, operation.index) or not stats.edge_norms:
            continue
        known = [e if e is not None else math.nan for e in stats.edge_norms]
        if operation.name in SOFTMAXES:
            gain = decades(known[0], stats.norm)
        elif len(known) >= 3:  # fused: queries and keys beside the values
            gain = decades(max(known[:2]), known[2])
        else:
            continue
        if gain == gain:
            found[layer_name(operation), operation.call] = max(gain, -300.0)
    return found


def _shut(values: list[float]) -> bool:
    middle = statistics.median(values)
    if middle < NOTHING:
        return True
    if middle > LITTLE or len(values) < FEW:
        return False
    lower, _, upper = statistics.quantiles(values, n=4)
    return upper - lower > ERRATIC


def _one_hot_by_now(values: list[float]) -> bool:
    """Whether it has come to hand back next to nothing, and at times nothing at all: its other entries are zero."""
    late = values[-LATELY:]
    return len(late) == LATELY and max(late) < LITTLE and sum(v <= GONE for v in late) >= 2


def _scorers(traced: Traced, index: int) -> list[tuple[int, str]]:
    """(operation, layer) of the weights that the scores come from, nearest first: queries, then keys."""
    operation = traced.operations[index]
    fused = operation.name not in SOFTMAXES
    ahead = list(operation.parents[:2] if fused else operation.parents)
    found: list[tuple[int, str]] = []
    seen: set[int] = set()
    while ahead:
        current = ahead.pop(0)
        if current in seen:
            continue
        seen.add(current)
        if traced.operations[current].kind == "weight" and any(traced.operations[current].parameters):
            found.append((current, layer_name(traced.operations[current])))
        else:
            ahead.extend(traced.operations[current].parents)
    return found


RULE = Rule(
    kind="vanishing_gradients",
    check=_check,
    why="The Jacobian of a softmax is diag(p) - p p^T: with all the weight on one entry it is zero, and queries and "
    "keys stay as they are.",
    wrong_when="A net that has learned to look at one place, and is stuck for another reason.",
    source=_SOURCE,
)
