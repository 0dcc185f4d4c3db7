"""Non-finite values: NaN or Inf in the loss or in gradients, and where they were first seen."""

from __future__ import annotations

import math
from collections.abc import Iterable

from unvanish.diagnose.facts import Facts
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Evidence, Finding
from unvanish.schema.graph import place

_HALF = ", in float16, which holds no number above 65504"
_SOURCE = "IEEE 754: NaN spreads through every sum that it enters"


def _check(facts: Facts) -> Iterable[Finding]:
    at, layers = facts.first_nonfinite
    bad_loss = facts.learning.first_bad_step
    if at is None and bad_loss is None:
        return
    if facts.learning.learns:
        return  # it came and went (a skipped step of loss scaling), and the net learns
    seen = min(s for s in (at, bad_loss) if s is not None)
    lasting = facts.learning.status == "non_finite"
    where = f"first in the gradient of {place(layers[0])}" if layers else "in the loss before any gradient"
    half = [p.dtype for p in facts.model.info.parameters if p.dtype == "float16"]
    overflow = _HALF if half else ""
    yield Finding(
        kind="non_finite",
        cause="low_precision" if half else "unknown",
        severity="critical" if lasting else "warning",
        confidence=0.99,
        layers=layers,
        first_step=seen,
        summary=f"NaN or Inf since step {seen}, {where}{overflow}; {facts.learning.sentence}.",
        evidence=(
            Evidence(
                layer=layers[0] if layers else "loss",
                statistic="share of values that are NaN or Inf",
                value=_share(facts, seen, layers),
                threshold=0.0,
                steps=(seen, seen),
                source=_SOURCE,
            ),
        ),
        treatments=("precision", "inputs", "learning_rate") if half else ("learning_rate", "clip", "init"),
    )


def _share(facts: Facts, step: int, layers: tuple[str, ...]) -> float:
    if not layers or step not in facts.model.parameter_steps:
        return 1.0
    row = facts.model.parameter_steps.index(step)
    width = len(facts.model.info.parameters)
    values = facts.model.parameter_stats["gradient_nonfinite"][row * width : (row + 1) * width]
    return max((v for v in values if math.isfinite(v)), default=1.0)


RULE = Rule(
    kind="non_finite",
    check=_check,
    why="Once a weight is NaN, everything that it touches is.",
    wrong_when="Loss scaling skips steps with Inf on purpose; a net that learns on is not reported.",
    source=_SOURCE,
)
