"""A plateau by symmetry: the units of a hidden layer are copies of one another, and stay so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import FEWEST, Facts
from unvanish.diagnose.path import parameter_layer
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Evidence, Finding
from unvanish.schema.graph import place
from unvanish.schema.run import ParameterInfo

ALIKE = 1e-6  # of the weights' mean square differs between units
_SOURCE = "Goodfellow et al. 2016, Deep Learning, 8.4: initial parameters must break symmetry between units"


def _check(facts: Facts) -> Iterable[Finding]:
    poorly = facts.learning.poorly and facts.learning.steps >= FEWEST
    copies = _copies(facts) if facts.stalled or poorly else []
    if copies:
        yield _of_copies(facts, copies)
        return
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


def _copies(facts: Facts) -> list[ParameterInfo]:
    """Weights of different modules that start equal and have stayed equal: each does what the others do."""
    alike: dict[tuple[object, ...], list[ParameterInfo]] = {}
    for parameter in facts.motion.weights:
        snaps = facts.snapshots.get(parameter.index, [])
        if not parameter.requires_grad or len(parameter.shape) < 2 or len(snaps) < 2:
            continue
        first, last = snaps[0], snaps[-1]
        if last.norm > 0 and first.quantiles != last.quantiles:
            key = (parameter.shape, first.norm, first.quantiles, last.norm, last.quantiles)
            alike.setdefault(key, []).append(parameter)
    return [p for same in alike.values() if len(same) > 1 for p in same]


def _of_copies(facts: Facts, copies: Sequence[ParameterInfo]) -> Finding:
    layers = tuple(dict.fromkeys(parameter_layer(p.name) for p in copies))
    return Finding(
        kind="plateau",
        cause="symmetry",
        severity="critical" if facts.stalled else "warning",
        confidence=0.9,
        layers=layers,
        first_step=0,
        summary=f"{place(layers[0])} and {len(layers) - 1} more start as copies of one another and are moved alike: "
        f"together they are no more than one of them; {facts.learning.sentence}.",
        evidence=(
            Evidence(layer=layers[0], statistic="weights that are equal at the start and at the end",
                     value=float(len(copies)), threshold=1.0, steps=facts.span, source=_SOURCE),
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
