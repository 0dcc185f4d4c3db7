"""A plateau of unknown cause: the loss does not move, and nothing that is checked says why."""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import THRESHOLD, Facts
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Evidence, Finding

LONG = 100  # steps
_SOURCE = "none: all that is known is what it is not"


def _check(facts: Facts) -> Iterable[Finding]:
    if (
        facts.learning.status != "stuck"
        or facts.learning.falling
        or facts.learning.steps < LONG
        or not facts.recent
    ):
        return
    entry = facts.recent[-1].entry
    yield Finding(
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
