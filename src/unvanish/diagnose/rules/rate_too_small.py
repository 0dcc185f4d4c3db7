"""A learning rate that is too small: all steps together could not have brought the loss down."""

from __future__ import annotations

import math
from collections.abc import Iterable

from unvanish.diagnose.facts import THRESHOLD, Facts
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Evidence, Finding

TOO_LITTLE = 0.05  # of the loss's scale: all that the steps so far could have brought, to first order
LITTLE_AS_SAID = 0.15  # the same, where the loss has done just that
STIFF = 0.02  # |g| |w| over the loss's scale below which the loss hardly asks for a change
PATIENCE = 60  # steps, of a loss that creeps
SHORT_PATH = 0.05  # |dw| / |w| of a whole tensor, summed over all steps
CUT_SHORT = 0.3  # the same, where the learning rate itself fell to next to nothing on the way
FADED = 0.01  # of the largest learning rate
_SOURCE = "first-order Taylor expansion: the loss falls by <-g, dw>"


def _check(facts: Facts) -> Iterable[Finding]:
    motion, learning = facts.motion, facts.learning
    creeps = learning.hardly and learning.steps >= PATIENCE
    if not (facts.stalled or creeps) or not motion.weights or not math.isfinite(motion.predicted):
        return
    most, last = motion.rates
    faded = math.isfinite(last) and last < FADED * most
    short = motion.travelled < (CUT_SHORT if faded else SHORT_PATH)
    fall = (learning.first - learning.last) / motion.scale if learning.first and learning.last else math.nan
    as_said = (
        0.5 * motion.predicted < fall < 2 * motion.predicted
    )  # no curvature in the way: there is too little of it
    little = abs(motion.predicted) < (LITTLE_AS_SAID if as_said else TOO_LITTLE)
    if faded and _faded_early(facts):
        little = True  # whatever the steps before might have brought
    if little and short and (motion.elasticity > STIFF or _asks(facts)):
        why = f"; the learning rate fell from {most:.2g} to {last:.2g}" if faded else ""
        yield Finding(
            kind="learning_rate_too_small",
            cause="learning_rate",
            severity="critical",
            confidence=0.9,
            layers=(),
            first_step=0,
            summary=f"all {facts.learning.steps} steps together moved most weights by no more than "
            f"{motion.travelled:.2g} of their size and could lower the loss by {max(0.0, motion.predicted):.1%}, "
            f"while the gradient is there{why}; {facts.learning.sentence}.",
            evidence=(
                Evidence(layer="", statistic="fall of the loss that all steps could bring, of its scale",
                         value=motion.predicted, threshold=TOO_LITTLE, steps=facts.span, source=_SOURCE),
                Evidence(layer="", statistic="|gradient| |weight| over the loss's scale", value=motion.elasticity,
                         threshold=STIFF, steps=facts.span, source=_SOURCE),
            ),
            treatments=("learning_rate",),
        )  # fmt: skip


def _faded_early(facts: Facts) -> bool:
    """Whether the rate was next to nothing for most of the run: no schedule that ends there."""
    rates = [r for r in facts.model.learning_rates if math.isfinite(r)]
    return bool(rates) and rates[len(rates) // 3] < FADED * max(rates)


def _asks(facts: Facts) -> bool:
    """Whether the backward pass brings what would do, and the gradient is made small behind it, as clipping does."""
    last = facts.recent[-1] if facts.recent else None
    return last is not None and last.entry > THRESHOLD and last.leverage > math.log10(STIFF)


RULE = Rule(
    kind="learning_rate_too_small",
    check=_check,
    why="The sum of all steps bounds what they can do: where it is next to nothing, no net learns.",
    wrong_when="A warm-up that has only just begun.",
    source=_SOURCE,
)
