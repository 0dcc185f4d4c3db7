"""A plateau: the loss does not move, and nothing else that is checked says why; the samples may look alike."""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import FEWEST, LOOK_ALIKE, THRESHOLD, Facts
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Evidence, Finding
from unvanish.schema.graph import place

LONG = 100  # steps
TRIED = 0.1  # |dw| / |w| summed over the steps: what has hardly been moved has not failed yet
_SOURCE = "none: all that is known is what it is not"
_DEPTH = "Schoenholz et al. 2016: over the depth, all inputs come to look alike (their correlation goes to 1)"


def _check(facts: Facts) -> Iterable[Finding]:
    learning = facts.learning
    if learning.status != "stuck" or learning.falling or not facts.recent or facts.motion.path < TRIED:
        return
    left = facts.told_apart
    if left is not None and left < LOOK_ALIKE and learning.steps >= 2 * FEWEST:
        yield _alike(facts, left)
    elif learning.steps >= LONG:
        yield _unknown(facts)


def _alike(facts: Facts, left: float) -> Finding:
    last = facts.model.architecture[-1].name
    return Finding(
        kind="plateau",
        cause="too_deep",
        severity="warning",
        confidence=0.6,
        layers=(last,),
        first_step=0,
        summary=f"at {place(last)} only {left:.1e} of what differs between samples was left at the start: "
        f"the output hardly depends on the input; {facts.learning.sentence}.",
        evidence=(
            Evidence(layer=last, statistic="share of the input that differs between samples, last layer over first",
                     value=left, threshold=LOOK_ALIKE, steps=(0, 0), source=_DEPTH),
        ),
        treatments=TREATMENTS["too_deep"],
    )  # fmt: skip


def _unknown(facts: Facts) -> Finding:
    entry = facts.recent[-1].entry
    return Finding(
        kind="plateau",
        cause="unknown",
        severity="warning",
        confidence=0.5,
        layers=(),
        first_step=0,
        summary=f"the signal reaches the first layers (10^{entry:.1f} of the output's), the steps are neither "
        f"tiny nor giant, yet {facts.learning.sentence}.",
        evidence=(
            Evidence(layer="", statistic="backprop signal at the first layers, of the output's, log10",
                     value=entry, threshold=THRESHOLD, steps=(facts.recent[0].step, facts.recent[-1].step),
                     source=_SOURCE),
        ),
        treatments=TREATMENTS["unknown"],
    )  # fmt: skip


RULE = Rule(
    kind="plateau",
    check=_check,
    why="A loss that does not move is a fact, even where its cause is not known.",
    wrong_when="A task that is learned after a long plateau (grokking, parity), or that can't be learned further.",
    source=_SOURCE,
)
