"""Vanishing through a judge that is too sure: what one net learns by another net's verdict dies in that verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import FEWEST, THRESHOLD, Facts, Profile
from unvanish.diagnose.path import decades
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Attribution, Evidence, Finding

MOST = 0.8  # of the traces: a judge that is ahead for a while is how such games go
LITTLE = 0.5  # |dw| / |w| summed over the steps
FEW = 5  # traces
_VERDICTS = ("LogSigmoid", "Sigmoid", "Softplus", "BinaryCrossEntropyWithLogits", "LogSoftmax", "Softmax")
_SOURCE = (
    "Goodfellow et al. 2014, 3: log(1 - D(G(z))) saturates where D rejects with confidence; Arjovsky 2017"
)


def _check(facts: Facts) -> Iterable[Finding]:
    if facts.learning.status != "contested" or facts.learning.steps < FEWEST or facts.adaptive:
        return  # an optimizer that divides by the gradient's size makes up for it
    judged = [(p, lost) for p in facts.profiles if (lost := _lost_in_the_verdict(p)) is not None]
    if len(judged) < FEW or facts.motion.path > LITTLE:
        return
    poor = [(p, lost) for p, lost in judged if lost[1] < THRESHOLD]
    if len(poor) < MOST * len(judged) or judged[-1][1][1] >= THRESHOLD:
        return
    profile, (name, taken) = judged[-1]
    taken = max(taken, -300.0)
    layers = tuple(dict.fromkeys(s.layer for s in profile.layers))
    yield Finding(
        kind="vanishing_gradients",
        cause="saturating_activation",
        severity="critical",
        confidence=0.75,
        layers=layers,
        first_step=poor[0][0].step,
        summary=f"what this net learns comes through another net's verdict, whose {name.lower()} is saturated and "
        f"takes {-taken:.1f} decades of it: the other is too sure, and nothing says which way is better; its weights "
        f"have moved by {facts.motion.path:.0%} in all.",
        evidence=(
            Evidence(layer=layers[0] if layers else "", statistic="gain of the verdict's last function, log10",
                     value=taken, threshold=THRESHOLD, steps=(poor[0][0].step, profile.step), source=_SOURCE),
        ),
        attribution=Attribution(activation=taken),
        treatments=TREATMENTS["saturating_activation"],
    )  # fmt: skip


def _lost_in_the_verdict(profile: Profile) -> tuple[str, float] | None:
    """(function, decades that it takes) behind weights that this model does not hold, next to the loss."""
    traced, output = profile.traced, profile.traced.trace.output
    if output is None:
        return None
    behind = traced.operations[output + 1 :]
    foreign = [o.index for o in behind if o.kind == "weight" and "" in o.parameters]
    if not foreign:
        return None
    for operation in behind:
        stats = traced.stats[operation.index]
        if operation.index < foreign[-1] or operation.name not in _VERDICTS or not stats.edge_norms:
            continue
        below = stats.edge_norms[0]
        # a loss in one piece starts at one; its slope for n samples is 1/sqrt(n) where it is not saturated
        samples = traced.stats[operation.parents[0]].count if stats.count == 1 else 1
        full = stats.norm / math.sqrt(max(1, samples))
        lost = math.nan if below is None else decades(below, full)
        return (operation.name, lost) if lost == lost else None
    return None


RULE = Rule(
    kind="vanishing_gradients",
    check=_check,
    why="A net that is trained by another's verdict gets the slope of that verdict; where the other rejects all it "
    "makes with confidence, the slope is zero.",
    wrong_when="A generator that has won, and waits for its judge.",
    source=_SOURCE,
)
