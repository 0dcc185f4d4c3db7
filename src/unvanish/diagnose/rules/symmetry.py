"""A plateau by symmetry: the units of a hidden layer are copies of one another, and stay so."""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import Facts
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Evidence, Finding
from unvanish.schema.graph import place

ALIKE = 1e-6  # of the weights' mean square differs between units
_SOURCE = "Goodfellow et al. 2016, Deep Learning, 8.4: initial parameters must break symmetry between units"


def _check(facts: Facts) -> Iterable[Finding]:
    if not facts.stalled:
        return
    alike = [
        s
        for s in facts.model.architecture[:-1]
        if s.unit_variety is not None and s.fan_out > 1 and s.unit_variety < ALIKE
    ]
    if not alike:
        return
    zero = all(s.weight_variance == 0 for s in alike)
    what = (
        "start at zero: no signal passes, and none comes back"
        if zero
        else "start as copies of one another, get the same gradient and stay copies"
    )
    yield Finding(
        kind="plateau",
        cause="symmetry",
        severity="critical",
        confidence=0.9,
        layers=tuple(s.name for s in alike),
        first_step=0,
        summary=f"the units of {place(alike[0].name)} {what}; {facts.learning.sentence}.",
        evidence=tuple(
            Evidence(layer=s.name, statistic="share of the weights' mean square that differs between units",
                     value=s.unit_variety or 0.0, threshold=ALIKE, steps=(0, 0), source=_SOURCE)
            for s in alike[:5]
        ),
        treatments=TREATMENTS["symmetry"],
    )  # fmt: skip


RULE = Rule(
    kind="plateau",
    check=_check,
    why="Units with equal weights compute the same and get the same gradient: a layer of them is one unit.",
    wrong_when="Zero-initialised branches beside a skip, in a net that is stuck for another reason.",
    source=_SOURCE,
)
