"""Vanishing gradients: what reaches the data's end of the net is a negligible part of what left the loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unvanish.diagnose.causes import RECURRENT, TREATMENTS, cause_of_loss
from unvanish.diagnose.facts import (
    FEWEST,
    GIANT_STEP,
    LOOK_ALIKE,
    THRESHOLD,
    Facts,
    Profile,
    lasting_since,
    median_starvation,
    most_starved_first,
)
from unvanish.diagnose.path import Traced, decades, is_weight, layer_name, parameter_layer
from unvanish.diagnose.rule import Rule
from unvanish.schema.chain import Factor
from unvanish.schema.finding import Attribution, Cause, Evidence, Finding, Severity
from unvanish.schema.graph import place

CLEAR = (
    -4.0
)  # decades: so little that no further steps are needed to be sure, under an optimizer that keeps scale
SHUT = 0.6  # decades that one activation takes: a ReLU that half the units pass takes 0.15
MASKED = 100  # steps; under an adaptive optimizer, which divides the scale away until its epsilon
MOVED = 1.0  # |dw| / |w| summed over the steps: before that an adaptive optimizer has not had its chance
# Decades between time steps: healthy gates halve the signal at each, and what happened lately may be all that counts.
FORGOTTEN = -4.0  # decades
SHUT_AT_ONCE = -1.5  # decades between one time step and the next: a GRU or an LSTM as drawn loses 0.3
USUAL_BIAS = 6.0
TINY_WEIGHT = 0.03  # below which a recurrent weight alone may take as much
_SMOOTH = frozenset("Exp Sigmoid Tanh Softplus LogSigmoid Erf Gelu Silu".split())
AT_ONCE = 20  # steps: before them nothing was learned that could be lost
TRIED = 0.05  # the same: a net that has not been moved has not failed at anything yet
FED = (
    THRESHOLD + 0.5
)  # decades: so much at the start, and what is lost later was not lost by the initialisation
_SOURCE = "Schoenholz et al. 2016: SGD trains to about 6 depth scales, a total RMS gain of e^-3"


@dataclass(frozen=True, slots=True)
class Faded:
    """A recurrence that the signal went back through: its layer, log10 of first time step over last."""

    layer: str
    decades: float
    first_use: int | None  # the operation of the first time step; None = the layer is one fused operation


def _check(facts: Facts) -> Iterable[Finding]:
    learning = facts.learning
    # the last layers alone may get the loss down a little, and no further
    halted = learning.hardly and not learning.falling
    # and a bad start alone is soon undone: nothing is learned before the loss is below that of guessing
    undone = learning.chance is not None and learning.last is not None and learning.last > learning.chance
    # without a known chance the fall to the best constant looks like learning: here nothing else could be learned
    constant = learning.chance is None and not learning.falling and _answers_alike(facts)
    excused = learning.learns and not (halted or undone or constant)
    if not facts.recent or learning.status == "non_finite":
        return
    starved = [p.entry < THRESHOLD for p in facts.profiles]
    since = lasting_since(facts.profiles, starved)
    if not math.isfinite(facts.recent[-1].entry) and not all(map(_rounded_to_zero, facts.recent)):
        since = None  # exact zeros are another matter: dead units, a cut, a number format
    if excused and not _lost_on_the_way(facts, since):
        return
    if learning.unmoved and facts.starved_alive:
        yield _finding(facts, facts.starved_alive[0].step, profiles=facts.starved_alive)
        return
    if since is not None and _sure(facts, facts.recent[-1].entry) and not _thrown_out_at_once(facts, since):
        yield _finding(facts, since)
        return
    if not facts.learning.unmoved or facts.learning.steps < FEWEST:
        return
    if facts.wide_init and all(_squashed(p) < CLEAR for p in facts.recent):
        yield _finding(facts, facts.recent[0].step, carried=True)
    elif all(map(_rounded_to_zero, facts.recent)) and (silent := _silent(facts)):
        yield _silenced(facts, silent)
    elif facts.motion.path > TRIED:
        yield from _fades_through_time(facts)


def _lost_on_the_way(facts: Facts, since: int | None) -> bool:
    """Whether the signal was there, is lost for good, and the loss stays high: what it learned, it learned before."""
    learning = facts.learning
    if since is None or since <= facts.profiles[0].step:
        return False
    fed = facts.profiles[0].entry > FED
    clear = all(p.entry < CLEAR for p in facts.recent)
    return fed and clear and learning.poorly and not learning.falling and learning.steps > since + FEWEST


def _rounded_to_zero(profile: Profile) -> bool:
    """Whether a smooth function's slope is so small that float32 has no number for it: exp(-200), say."""
    traced = profile.traced
    return any(o.name in _SMOOTH and traced.swallows(o.index) for o in traced.operations)


def _silent(facts: Facts) -> list[str]:
    """Layers whose weights have got nothing but exact zeros at every look."""
    zeros = facts.motion.column("gradient_zeros")
    return [
        parameter_layer(p.name)
        for p in facts.motion.weights
        if len(zeros) and (zeros[:, p.index] == 1.0).all()
    ]


def _silenced(facts: Facts, layers: Sequence[str]) -> Finding:
    """Weights that enter elsewhere than in a matrix product: the radii of a radial basis, say."""
    return Finding(
        kind="vanishing_gradients",
        cause="saturating_activation",
        severity="critical",
        confidence=0.85,
        layers=tuple(dict.fromkeys(layers)),
        first_step=0,
        summary=f"nothing but exact zeros comes to {place(layers[0])}: the slope of what lies behind it is smaller "
        f"than any number of its format; {facts.learning.sentence}.",
        evidence=(
            Evidence(layer=layers[0], statistic="share of the gradient's elements that are exactly zero", value=1.0,
                     threshold=1.0, steps=facts.span, source=_SOURCE),
        ),
        attribution=Attribution(activation=-300.0),
        treatments=TREATMENTS["saturating_activation"],
    )  # fmt: skip


def _squashed(profile: Profile) -> float:
    """Decades that activations take on the way to the first layer, whatever large weights give back of them.

    What large weights carry through saturated units is chaos (Poole et al. 2016): it does not lead anywhere.
    """
    first = profile.layers[0]
    return cause_of_loss(profile.traced, first.operation)[1].activation


def _thrown_out_at_once(facts: Facts, since: int) -> bool:
    """Whether the very first steps, far too large, took the signal away that was there: the rate's doing alone."""
    first = facts.profiles[0]
    there = first.entry > THRESHOLD and first.step < since <= AT_ONCE
    return there and facts.heaviest_step(last=since + 1)[0] > GIANT_STEP


def _answers_alike(facts: Facts) -> bool:
    """Whether at the start all samples got the same answer, and no step since then could change that."""
    apart = facts.told_apart is not None and facts.told_apart < LOOK_ALIKE
    starved = bool(facts.profiles) and all(p.entry < CLEAR for p in facts.profiles)
    return apart and starved and not facts.adaptive


def _sure(facts: Facts, entry: float) -> bool:
    """Whether enough was seen to speak: a clear loss of signal at once, a weak one only beside a stalled loss."""
    if facts.adaptive and not _suppressed(facts):
        tried = facts.learning.steps >= MASKED and facts.motion.path > MOVED
        return facts.learning.unmoved and tried
    if entry < CLEAR and len(facts.recent) >= 2:
        return True
    return facts.learning.unmoved and facts.learning.steps >= FEWEST


def _suppressed(facts: Facts) -> bool:
    """Adaptive optimizers step by about lr whatever the gradient's scale, until it nears their epsilon."""
    epsilons = [o.options.get("eps") for o in facts.model.info.optimizers]
    epsilon = next(
        (float(e) for e in epsilons if isinstance(e, int | float) and not isinstance(e, bool)), 1e-8
    )
    first = next((p for p in facts.motion.weights if p.requires_grad), None)
    if first is None:
        return False
    recent = facts.motion.column("gradient_rms")[-10:, first.index]
    recent = recent[np.isfinite(recent)]
    return len(recent) > 0 and float(np.median(recent)) < epsilon


def _finding(
    facts: Facts, since: int, *, carried: bool = False, profiles: Sequence[Profile] | None = None
) -> Finding:
    """`carried`: saturated units, through which large weights carry a signal all the same.

    `profiles`: where others than the last ones show it.
    """
    shown = facts.recent if profiles is None else profiles
    profile = shown[-1]
    levels = median_starvation(shown)
    starved = most_starved_first({layer: v for layer, v in levels.items() if carried or v < THRESHOLD})
    target = profile.layers[0] if carried else profile.most_starved
    cause, parts, factors = cause_of_loss(profile.traced, target.operation)
    cause = "init_too_large" if carried else _since_when(facts, since, cause)
    if cause == "init_too_small" and _shut(parts, factors):
        below = any(facts.biased_below(layer, since) for layer in starved)
        cause = "bias_drift" if below else "saturating_activation"
    lost = -parts.total
    blame = _blame(cause, factors, parts)
    part = profile.traced.trace
    evidence = [
        Evidence(
            layer=layer,
            statistic="backprop signal relative to the output, log10",
            value=levels[layer],
            threshold=THRESHOLD,
            steps=(since, part.step),
            source=_SOURCE,
        )
        for layer in starved[:5]
    ]
    severity, confidence = _severity(facts, CLEAR if carried else profile.entry)
    return Finding(
        kind="vanishing_gradients",
        cause=cause,
        severity=severity,
        confidence=0.75 if carried else confidence,
        layers=tuple(starved),
        first_step=since,
        summary=f"of the signal that leaves the output 10^{target.raw:.1f} reaches {place(target.layer)}: of the "
        f"{lost:.1f} decades lost, {blame}; {facts.learning.sentence}.",
        evidence=tuple(evidence),
        attribution=parts,
        treatments=TREATMENTS[cause],
    )


def _shut(parts: Attribution, factors: Sequence[Factor]) -> bool:
    """Whether activations that pass half by nature (ReLU, GELU) take far more, and more than the weights."""
    gates = sum(f.kind == "activation" for f in factors)
    return parts.activation < min(parts.weight, -SHUT * gates)


def _since_when(facts: Facts, since: int, cause: Cause) -> Cause:
    """What came up in mid-training is not the initialisation's doing: a giant step before it is, or saturation."""
    fed = facts.profiles[0].entry > FED
    if since <= facts.profiles[0].step or not fed or not cause.startswith(("init", "saturating")):
        return cause
    if cause == "init_too_large" and facts.wide_init:
        return (
            cause  # large weights carry a signal through what they saturate, until the steps take them down
        )
    if facts.heaviest_step(last=since + 1)[0] > GIANT_STEP:
        return "learning_rate"
    return (
        "unknown" if cause == "init_too_small" else "saturating_activation"
    )  # weights that shrink: weight decay


def _severity(facts: Facts, entry: float) -> tuple[Severity, float]:
    """(severity, confidence): the further below the threshold the surer, and less sure where the scale is masked."""
    if not facts.learning.unmoved:
        return "warning", 0.8  # too few steps for the loss to say anything
    masked = facts.adaptive and not _suppressed(facts)
    if entry < CLEAR:
        return "critical", 0.75 if masked else 0.97
    depth = (THRESHOLD - entry) / (THRESHOLD - CLEAR)  # 0 .. 1
    return "critical", round(0.7 + 0.2 * depth - (0.1 if masked else 0.0), 2)


def _blame(cause: Cause, factors: Sequence[Factor], parts: Attribution) -> str:
    layers = sum(f.kind == "weight" for f in factors)
    if cause == "recurrence":
        return f"the same weight, used {layers} times in a row, took them"
    names = [f.name.lower() for f in factors if f.kind == "activation"]
    activation = f"{max(set(names), key=names.count)} derivatives" if names else "activation derivatives"
    if cause == "init_too_large" or (cause == "learning_rate" and parts.activation < 0):
        by_hand = parts.activation > parts.other
        taken, name = (parts.other, "operations") if by_hand else (parts.activation, activation)
        return f"{name} took {-taken:.1f} (saturated: the weights are too large)"
    shares = [
        (parts.activation, activation),
        (parts.weight, "weights"),
        (parts.norm, "norms"),
        (parts.other, "other operations"),
    ]
    shares = sorted(s for s in shares if s[0] < -0.05)
    words = [f"{name} took {-value:.1f}" for value, name in shares]
    return ", ".join(words) or f"{layers} layers took a little each"


def faded_through_time(profile: Profile, sequences: Sequence[tuple[int, ...]]) -> Faded | None:
    """The recurrence that loses most between where the signal is largest and the first time step."""
    traced = profile.traced
    fused = [
        Faded(t.module or "the recurrent layer", decades(t.norms[0], max(t.norms)), None)
        for t in traced.trace.through_time
        if len(t.norms) >= RECURRENT and not t.reverse
    ]
    unrolled = [
        Faded(
            layer_name(traced.operations[uses[0]]),
            decades(traced.stats[uses[0]].norm, max(traced.stats[i].norm for i in uses)),
            uses[0],
        )
        for uses in sequences
    ]
    known = [f for f in (*fused, *unrolled) if f.decades == f.decades]
    return min(known, key=lambda f: f.decades, default=None)


def sequences_of(traced: Traced) -> list[tuple[int, ...]]:
    """The uses of each weight that is used again and again, one after another, in order of execution."""
    uses: dict[str, list[int]] = {}
    for index in traced.weighted():
        for name in traced.operations[index].parameters:
            if is_weight(name):
                uses.setdefault(name, []).append(index)
    often = {tuple(found) for found in uses.values() if len(found) >= RECURRENT}
    return sorted(found for found in often if traced.follows(found[0], found[-1]))


def _fades_through_time(facts: Facts) -> Iterable[Finding]:
    # not every trace looks between the time steps of a fused layer
    sequences: dict[str, list[tuple[int, ...]]] = {}
    looked = []
    for p in facts.profiles:
        if p.traced.graph.key not in sequences:
            sequences[p.traced.graph.key] = sequences_of(p.traced)
        lost_here = faded_through_time(p, sequences[p.traced.graph.key])
        if lost_here is not None:
            looked.append((p, lost_here))
    since = lasting_since([p for p, _ in looked], [faded.decades < FORGOTTEN for _, faded in looked])
    if since is None:
        return
    profile, faded = looked[-1]
    lost = max(faded.decades, -300.0)
    parts = Attribution(other=lost)
    cause: Cause = "recurrence"
    why = ""
    if faded.first_use is not None:
        _, parts, _ = cause_of_loss(profile.traced, faded.first_use)
    elif _shut_by_inputs(facts, faded, looked[0][0]):
        cause, why = "inputs", ": its gates are shut from the start by what comes in, which is far too large"
    yield Finding(
        kind="vanishing_gradients",
        cause=cause,
        severity="critical",
        confidence=0.75,  # all gates forget: what the task asks for may lie within their reach
        layers=(faded.layer,),
        first_step=since,
        summary=f"going back through time, {place(faded.layer)} loses {-lost:.1f} decades of signal between "
        f"its last step and its first: what happened early can't be learned{why}; {facts.learning.sentence}.",
        evidence=(
            Evidence(
                layer=faded.layer,
                statistic="backprop signal at the first time step over the last, log10",
                value=lost,
                threshold=FORGOTTEN,
                steps=(since, profile.step),
                source=_SOURCE,
            ),
        ),
        attribution=parts,
        treatments=TREATMENTS[cause],
    )


def _shut_by_inputs(facts: Facts, faded: Faded, profile: Profile) -> bool:
    """Whether a fused recurrence loses so much at each time step, at the start, as its own weights can't make it.

    What it hands from step to step lies between -1 and 1: with weights and biases of usual sizes only the inputs can
    drive its gates, or tanh, to where they have no slope.
    """
    norms = [t.norms for t in profile.traced.trace.through_time if t.module == faded.layer and not t.reverse]
    reached = [decades(n[0], max(n)) / min(len(n), sum(v > 0 for v in n) + 1) for n in norms]
    if not reached or profile.step > AT_ONCE or max(reached) > SHUT_AT_ONCE:
        return False
    own = [p.index for p in facts.model.info.parameters if parameter_layer(p.name) == faded.layer]
    sizes = [
        (facts.model.info.parameters[i], max(map(abs, facts.snapshots[i][0].quantiles)))
        for i in own
        if facts.snapshots.get(i)
    ]
    usual = all(size < (1.0 if len(p.shape) > 1 else USUAL_BIAS) for p, size in sizes)
    drawn = any(len(p.shape) > 1 and "hh" in p.name and size > TINY_WEIGHT for p, size in sizes)
    return usual and drawn


RULE = Rule(
    kind="vanishing_gradients",
    check=_check,
    why="Backpropagation multiplies factors along the chain rule; when their product falls below e^-3 in amplitude, "
    "plain SGD moves the early layers too little to ever start learning.",
    wrong_when="The loss stalls for another reason while the signal also happens to be weak; a net whose early "
    "layers need no training (random features); an adaptive optimizer that will still escape.",
    source=_SOURCE,
)
