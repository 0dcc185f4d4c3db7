"""A learning rate that is too large: steps rewrite the weights and undo each other, and the loss stays finite."""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import GIANT_STEP, Facts
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Evidence, Finding

LARGE_STEP = 0.05  # |dw| / |w| of a whole tensor, step after step
MUCH = 1.0  # of the loss's scale: the steps should have brought all of it
_SOURCE = "Lewkowycz et al. 2020, the large learning rate phase: beyond it steps overshoot"


def _check(facts: Facts) -> Iterable[Finding]:
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
                         value=motion.step_size, threshold=LARGE_STEP, steps=facts.span, source=_SOURCE),
                Evidence(layer=layer, statistic="|step| / |weight|, the largest", value=value, threshold=GIANT_STEP,
                         steps=(max(0, at), max(0, at)), source=_SOURCE),
            ),
            treatments=TREATMENTS["learning_rate"],
        )  # fmt: skip


RULE = Rule(
    kind="learning_rate_too_large",
    check=_check,
    why="The gradient holds for small changes only; a step that rewrites the weights goes where it knows nothing of.",
    wrong_when="Scale-invariant weights (before a norm), whose size says little; very small weights at the start.",
    source=_SOURCE,
)
