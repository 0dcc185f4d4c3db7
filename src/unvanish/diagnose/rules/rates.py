"""A learning rate that does not fit: steps too small to get anywhere, or so large that they undo each other."""

from __future__ import annotations

import math
from collections.abc import Iterable

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import Facts
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Evidence, Finding

TOO_LITTLE = 0.05  # of the loss's scale: all that the steps so far could have brought, to first order
STIFF = 0.02  # |g| |w| over the loss's scale below which the loss hardly asks for a change
LARGE_STEP = 0.05  # |dw| / |w| of a whole tensor, step after step
GIANT_STEP = 0.5
MUCH = 1.0  # of the loss's scale: the steps should have brought all of it
_SMALL_SOURCE = "first-order Taylor expansion: the loss falls by <-g, dw>"
_LARGE_SOURCE = "Lewkowycz et al. 2020, the large learning rate phase: beyond it steps overshoot"


def _small(facts: Facts) -> Iterable[Finding]:
    motion = facts.motion
    if not facts.stalled or not motion.weights or not math.isfinite(motion.predicted):
        return
    if abs(motion.predicted) < TOO_LITTLE and motion.elasticity > STIFF and motion.path < LARGE_STEP:
        most, last = motion.rates
        faded = math.isfinite(last) and last < 0.01 * most
        why = f"; the learning rate fell from {most:.2g} to {last:.2g}" if faded else ""
        yield Finding(
            kind="learning_rate_too_small",
            cause="learning_rate",
            severity="critical",
            confidence=0.9,
            layers=(),
            first_step=0,
            summary=f"all {facts.learning.steps} steps together moved no weight by more than {motion.path:.2g} of "
            f"its size and could lower the loss by {max(0.0, motion.predicted):.1%}, while the gradient is "
            f"there{why}; {facts.learning.sentence}.",
            evidence=(
                Evidence(layer="", statistic="fall of the loss that all steps could bring, of its scale",
                         value=motion.predicted, threshold=TOO_LITTLE, steps=_span(facts), source=_SMALL_SOURCE),
                Evidence(layer="", statistic="|gradient| |weight| over the loss's scale", value=motion.elasticity,
                         threshold=STIFF, steps=_span(facts), source=_SMALL_SOURCE),
            ),
            treatments=TREATMENTS["learning_rate"],
        )  # fmt: skip


def _large(facts: Facts) -> Iterable[Finding]:
    motion = facts.motion
    if not facts.stalled or not motion.weights:
        return
    giant, layer, at = facts.heaviest_step()
    if motion.step_size > LARGE_STEP or (giant > GIANT_STEP and motion.predicted > MUCH):
        value = max(motion.step_size, giant)
        yield Finding(
            kind="learning_rate_too_large",
            cause="learning_rate",
            severity="critical",
            confidence=0.85 if facts.learning.status == "worse" else 0.75,
            layers=(layer,) if layer else (),
            first_step=max(0, at),
            summary=f"a step changes the weights by {motion.step_size:.0%} of their size as a rule, by {giant:.0%} "
            f"at most: they overshoot what they aim at; {facts.learning.sentence}.",
            evidence=(
                Evidence(layer=layer, statistic="|step| / |weight|, the median over the steps",
                         value=motion.step_size, threshold=LARGE_STEP, steps=_span(facts), source=_LARGE_SOURCE),
                Evidence(layer=layer, statistic="|step| / |weight|, the largest", value=value, threshold=GIANT_STEP,
                         steps=(max(0, at), max(0, at)), source=_LARGE_SOURCE),
            ),
            treatments=TREATMENTS["learning_rate"],
        )  # fmt: skip


def _span(facts: Facts) -> tuple[int, int]:
    steps = facts.model.steps
    return (steps[0], steps[-1]) if len(steps) else (0, 0)


TOO_SMALL = Rule(
    kind="learning_rate_too_small",
    check=_small,
    why="The sum of all steps bounds what they can do: where it is next to nothing, no net learns.",
    wrong_when="A warm-up that has only just begun.",
    source=_SMALL_SOURCE,
)
TOO_LARGE = Rule(
    kind="learning_rate_too_large",
    check=_large,
    why="The gradient holds for small changes only; a step that rewrites the weights goes where it knows nothing of.",
    wrong_when="Scale-invariant weights (before a norm), whose size says little; very small weights at the start.",
    source=_LARGE_SOURCE,
)
