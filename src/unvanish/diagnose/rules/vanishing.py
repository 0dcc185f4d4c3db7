"""Vanishing gradients: what reaches the data's end of the net is a negligible part of what left the loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from unvanish.diagnose.causes import RECURRENT, TREATMENTS, cause_of_loss, recurrent_weight
from unvanish.diagnose.facts import (
    FEWEST,
    GIANT_STEP,
    THRESHOLD,
    Facts,
    Profile,
    lasting_since,
    median_starvation,
    most_starved_first,
)
from unvanish.diagnose.path import decades
from unvanish.diagnose.rule import Rule
from unvanish.schema.chain import Factor
from unvanish.schema.finding import Attribution, Cause, Evidence, Finding, Severity
from unvanish.schema.graph import place

CLEAR = (
    -4.0
)  # decades: so little that no further steps are needed to be sure, under an optimizer that keeps scale
MASKED = 100  # the same under an adaptive optimizer, which divides the scale away until its epsilon
_SOURCE = "Schoenholz et al. 2016: SGD trains to about 6 depth scales, a total RMS gain of e^-3"


def _check(facts: Facts) -> Iterable[Finding]:
    if facts.learning.learns or not facts.recent or facts.learning.status == "non_finite":
        return
    starved = [p.entry < THRESHOLD and math.isfinite(p.entry) for p in facts.profiles]
    since = lasting_since(facts.profiles, starved)
    if since is not None and _sure(facts, facts.recent[-1].entry):
        yield _finding(facts, since)
        return
    faded = [(_through_time(p) or (0.0, 0))[0] < THRESHOLD for p in facts.profiles]
    since = lasting_since(facts.profiles, faded)
    if since is not None and facts.learning.unmoved and facts.learning.steps >= FEWEST:
        yield _recurrent_finding(facts, since)


def _sure(facts: Facts, entry: float) -> bool:
    """Whether enough was seen to speak: a clear loss of signal at once, a weak one only beside a stalled loss."""
    if facts.adaptive and not _suppressed(facts):
        return facts.learning.unmoved and facts.learning.steps >= MASKED
    if entry < CLEAR and len(facts.recent) >= 2:
        return True
    return facts.learning.unmoved and facts.learning.steps >= FEWEST


def _suppressed(facts: Facts) -> bool:
    """Adaptive optimizers step by about lr whatever the gradient's scale, until it nears their epsilon."""
    epsilons = [o.options.get("eps") for o in facts.model.info.optimizers]
    epsilon = next(
        (float(e) for e in epsilons if isinstance(e, int | float) and not isinstance(e, bool)), 1e-8
    )
    first = next((p for p in facts.model.info.parameters if len(p.shape) > 1), None)
    if first is None:
        return False
    recent = facts.motion.column("gradient_rms")[-10:, first.index]
    recent = recent[np.isfinite(recent)]
    return len(recent) > 0 and float(recent.max()) < epsilon


def _finding(facts: Facts, since: int) -> Finding:
    profile = facts.recent[-1]
    levels = median_starvation(facts.recent)
    starved = most_starved_first({layer: v for layer, v in levels.items() if v < THRESHOLD})
    target = profile.most_starved
    cause, parts, factors = cause_of_loss(profile.traced, target.operation)
    cause = _since_when(facts, since, cause)
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
    severity, confidence = _severity(facts, target.starvation)
    return Finding(
        kind="vanishing_gradients",
        cause=cause,
        severity=severity,
        confidence=confidence,
        layers=tuple(starved),
        first_step=since,
        summary=f"of the signal that leaves the output 10^{target.raw:.1f} reaches {place(target.layer)}: of the "
        f"{lost:.1f} decades lost, {blame}; {facts.learning.sentence}.",
        evidence=tuple(evidence),
        attribution=parts,
        treatments=TREATMENTS[cause],
    )


def _since_when(facts: Facts, since: int, cause: Cause) -> Cause:
    """What came up in mid-training is not the initialisation's doing: a giant step before it is, or saturation."""
    if since <= facts.profiles[0].step or not cause.startswith(("init", "saturating")):
        return cause
    if facts.heaviest_step(last=since + 1)[0] > GIANT_STEP:
        return "learning_rate"
    return "saturating_activation"


def _severity(facts: Facts, starvation: float) -> tuple[Severity, float]:
    """(severity, confidence)."""
    if facts.learning.unmoved:
        clear = starvation < CLEAR and not facts.adaptive
        return "critical", 0.97 if clear else 0.85 if facts.learning.steps >= 2 * FEWEST else 0.75
    return "warning", 0.8  # too few steps for the loss to say anything


def _blame(cause: Cause, factors: Sequence[Factor], parts: Attribution) -> str:
    layers = sum(f.kind == "weight" for f in factors)
    if cause == "recurrence":
        return f"the same weight, used {layers} times in a row, took them"
    names = [f.name.lower() for f in factors if f.kind == "activation"]
    activation = f"{max(set(names), key=names.count)} derivatives" if names else "activation derivatives"
    if cause == "init_too_large" or (cause == "learning_rate" and parts.activation < 0):
        return f"{activation} took {-parts.activation:.1f} (saturated: the weights are too large)"
    shares = [
        (parts.activation, activation),
        (parts.weight, "weights"),
        (parts.norm, "norms"),
        (parts.other, "other operations"),
    ]
    shares = sorted(s for s in shares if s[0] < -0.05)
    words = [f"{name} took {-value:.1f}" for value, name in shares]
    return ", ".join(words) or f"{layers} layers took a little each"


def _through_time(profile: Profile) -> tuple[float, int] | None:
    """(decades along the repeated weight from its last use to its first, the operation of the first)."""
    traced = profile.traced
    recurring = traced.repeated_ahead(RECURRENT)  # elsewhere no path need be followed: there may be thousands
    for signal in (s for s in profile.layers if s.operation in recurring):
        path = traced.path_to(signal.operation)
        weight = recurrent_weight(traced, path)
        if weight is not None:
            uses = [i for i in path if weight in traced.operations[i].parameters]
            return decades(traced.stats[uses[-1]].norm, traced.stats[uses[0]].norm), uses[-1]
    return None


def _recurrent_finding(facts: Facts, since: int) -> Finding:
    profile = facts.recent[-1]
    lost, first_use = _through_time(profile) or (0.0, profile.layers[0].operation)
    _, parts, _ = cause_of_loss(profile.traced, first_use)
    layer = next(s.layer for s in profile.layers if s.operation == first_use)
    return Finding(
        kind="vanishing_gradients",
        cause="recurrence",
        severity="critical",
        confidence=0.85,
        layers=(layer,),
        first_step=since,
        summary=f"going back through time, {place(layer)} loses {-lost:.1f} decades of signal between "
        f"its last step and its first: what happened early can't be learned; {facts.learning.sentence}.",
        evidence=(
            Evidence(
                layer=layer,
                statistic="backprop signal at the first time step over the last, log10",
                value=lost,
                threshold=THRESHOLD,
                steps=(since, profile.step),
                source=_SOURCE,
            ),
        ),
        attribution=parts,
        treatments=TREATMENTS["recurrence"],
    )


RULE = Rule(
    kind="vanishing_gradients",
    check=_check,
    why="Backpropagation multiplies factors along the chain rule; when their product falls below e^-3 in amplitude, "
    "plain SGD moves the early layers too little to ever start learning.",
    wrong_when="The loss stalls for another reason while the signal also happens to be weak; a net whose early "
    "layers need no training (random features); an adaptive optimizer that will still escape.",
    source=_SOURCE,
)
