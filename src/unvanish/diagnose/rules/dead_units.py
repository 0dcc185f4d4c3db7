"""Dead units: activations that passed no signal for any sample, again and again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import GIANT_STEP, PERSISTENT, Facts, Profile
from unvanish.diagnose.path import Traced, layer_name, parameter_layer
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Cause, Evidence, Finding
from unvanish.schema.graph import place

ALL = 0.999  # the layer cuts the signal
MOST = 0.8  # of a layer's units; healthy ReLU nets close a good part of them for a whole batch
_LATE = 8  # steps that were looked at
_BOUNDED = ("Hardtanh", "Hardsigmoid", "Sigmoid", "Tanh", "Hardswish")
_SOURCE = (
    "Lu et al. 2019 (dying ReLU): a unit that is closed for every input gets no gradient and stays closed"
)


@dataclass(frozen=True, slots=True)
class Gate:
    """One activation in one trace: where it is, which weighted layer feeds it, the share of its units closed."""

    step: int
    place: str
    layer: str
    closed: float
    units: int
    name: str  # of the operation
    norm: str | None  # the norm between that layer and the activation
    last: bool  # no weights come behind it: it is the output's


def _check(facts: Facts) -> Iterable[Finding]:
    if facts.learning.status == "non_finite" or not facts.recent:
        return
    if facts.starved_alive:
        return  # nothing came to them before they closed: vanishing.py has the word
    cut = len(facts.recent) >= PERSISTENT and all(_cut_off(p) for p in facts.recent)
    if facts.learning.learns and not cut:
        silent = _silent(facts)
        if silent is not None:  # a loss that fell earlier does not bring a dead layer back
            yield _silenced(facts, *silent)
        return
    by_layer: dict[str, list[Gate]] = {}
    for profile in facts.profiles:
        for gate in _gates(profile):
            by_layer.setdefault(gate.layer, []).append(gate)
    last_step = max((gate.step for gates in by_layer.values() for gate in gates), default=-1)
    dead: list[tuple[float, list[Gate]]] = []
    for gates in by_layer.values():
        lasting = _lasting(gates)
        if lasting and lasting[-1].step == last_step and (len(lasting) >= min(PERSISTENT, len(facts.recent))):
            dead.append((lasting[-1].closed, lasting))
    if dead and (facts.learning.unmoved or max(share for share, _ in dead) >= ALL):
        yield _finding(facts, sorted(dead, key=lambda d: -d[0]), cut=cut)


def _cut_off(profile: Profile) -> bool:
    """Whether nothing at all of what leaves the output reaches the first layers."""
    output = profile.traced.trace.output
    return profile.entry == -math.inf and output is not None and profile.traced.stats[output].norm > 0


def _silent(facts: Facts) -> tuple[tuple[str, ...], int, Gate] | None:
    """(layers, since which step, the gate that closed) where all weights up to one have got exact zeros of late.

    Seen at every step that the parameters are looked at, and so between two traces as well.
    """
    gates = [gate for gate in _gates(facts.recent[-1]) if gate.name not in _BOUNDED]
    order = list(dict.fromkeys(s.layer for s in facts.recent[-1].layers))
    column = facts.motion.column("gradient_zeros")
    if len(column) < _LATE or facts.learning.status == "contested":
        return None
    zero: dict[str, NDArray[np.bool_]] = {}
    for parameter in facts.motion.weights:
        layer = parameter_layer(parameter.name)
        zero[layer] = zero.get(layer, np.ones(len(column), np.bool_)) & (column[:, parameter.index] == 1.0)
    quiet = [layer for layer in order if layer in zero and zero[layer][-_LATE:].all()]
    loud = [layer for layer in order if layer in zero and not zero[layer][-_LATE:].any()]
    if not quiet or not loud or quiet != order[: len(quiet)]:
        return None
    gate = next((g for g in reversed(gates) if g.layer == quiet[-1]), None)
    if gate is None:
        return None
    rows = zero[quiet[-1]]
    since = int(np.flatnonzero(~rows)[-1]) + 1 if not rows.all() else 0
    return tuple(reversed(quiet)), int(facts.model.parameter_steps[since]), gate


def _silenced(facts: Facts, layers: tuple[str, ...], since: int, gate: Gate) -> Finding:
    cause = _cause(facts, gate, since)
    last = facts.model.parameter_steps[-1]
    return Finding(
        kind="dead_units",
        cause=cause,
        severity="critical",
        confidence=0.9,
        layers=layers,
        first_step=since,
        summary=f"since step {since} nothing but exact zeros reaches {place(layers[0])}: all {gate.units} units "
        f"behind it are closed; {facts.learning.sentence}.",
        evidence=(
            Evidence(layer=layers[0], statistic="share of the gradient's elements that are exactly zero", value=1.0,
                     threshold=ALL, steps=(since, last), source=_SOURCE),
        ),
        treatments=TREATMENTS[cause],
    )  # fmt: skip


def _gates(profile: Profile) -> Iterable[Gate]:
    traced = profile.traced
    last = max(traced.weighted(), default=-1)
    for operation, stats in zip(traced.operations, traced.stats, strict=True):
        if stats.units and stats.closed_units is not None:
            layer, norm = _fed_by(traced, operation.index)
            yield Gate(
                step=profile.step,
                place=layer_name(operation),
                layer=layer,
                closed=stats.closed_units / stats.units,
                units=stats.units,
                name=operation.name,
                norm=norm,
                last=operation.index > last,
            )


def _fed_by(traced: Traced, index: int) -> tuple[str, str | None]:
    """(the weighted layer whose output the activation gates, the norm between the two)."""
    current, norm = traced.operations[index], None
    while current.parents:
        current = traced.operations[max(current.parents)]
        if current.kind == "norm":
            norm = layer_name(current)
        if current.kind == "weight":
            return layer_name(current), norm
    return layer_name(traced.operations[index]), norm


def _lasting(gates: Sequence[Gate]) -> list[Gate]:
    """The unbroken row of traces, up to the last, in which most units are closed."""
    row: list[Gate] = []
    for gate in reversed(gates):
        if gate.closed < MOST:
            break
        row.append(gate)
    return row[::-1]


def _finding(facts: Facts, dead: Sequence[tuple[float, list[Gate]]], *, cut: bool) -> Finding:
    worst = dead[0][1]
    gate, since = worst[-1], worst[0].step
    cuts = gate.closed >= ALL
    cause = _cause(facts, gate, since)
    sure = cuts and (cut or facts.learning.unmoved)
    row = min((g[0].step for _, g in dead), default=since)
    what = "all" if cuts else f"{gate.closed:.0%}"
    return Finding(
        kind="dead_units",
        cause=cause,
        severity="critical" if sure else "warning",
        confidence=0.97 if sure else 0.8,
        layers=tuple(g[-1].layer for _, g in dead),
        first_step=row,
        summary=f"{what} of the {gate.units} units behind {place(gate.layer)} are closed for every sample "
        f"since step {since}"
        f"{' and cut off everything before them' if cuts else ''}; {facts.learning.sentence}.",
        evidence=tuple(
            Evidence(
                layer=g[-1].place,
                statistic="share of units that pass no signal for any sample of the batch",
                value=g[-1].closed,
                threshold=ALL if g[-1].closed >= ALL else MOST,
                steps=(g[0].step, g[-1].step),
                source=_SOURCE,
            )
            for _, g in dead[:5]
        ),
        treatments=TREATMENTS[cause],
    )


def _cause(facts: Facts, gate: Gate, since: int) -> Cause:
    """A giant step just before the death is the learning rate's doing; a negative bias is the bias's."""
    if gate.last and gate.name == "Relu":
        return "output_activation"  # what the loss asks for lies where it is flat
    if gate.name in _BOUNDED:
        # closed at its upper end, or at both
        return "init_too_large" if facts.wide_init else "saturating_activation"
    if since > 0 and facts.heaviest_step(last=since + 1)[0] > GIANT_STEP:
        return "learning_rate"
    if _all_zero(facts, gate.layer, since):
        return "init_too_small"
    if facts.biased_below(gate.norm or gate.layer, since):
        return "bias_drift"
    return "unknown" if since > 0 else _born_dead(facts, gate)


def _born_dead(facts: Facts, gate: Gate) -> Cause:
    """With weights and biases as they are drawn."""
    if gate.name == "Threshold":
        return "bias_drift"  # it asks for more than zero: the same as a negative bias
    if gate.norm is not None:
        return "normalization"  # a norm gives both signs, unless its gain or its shift takes that away
    entry = facts.model.architecture[0] if facts.model.architecture else None
    at_entry = entry is not None and entry.name == gate.layer
    return "inputs" if at_entry else "too_deep"  # at the entry it is what comes in that closes every unit


def _all_zero(facts: Facts, layer: str, since: int) -> bool:
    """Whether the layer's weights are zero when its units die: a layer that is put in that way, say."""
    own = [p.index for p in facts.motion.weights if parameter_layer(p.name) == layer]
    rows = np.flatnonzero(np.array(facts.model.parameter_steps) >= since)
    if not own or not len(rows):
        return False
    return bool((facts.motion.column("weight_rms")[rows[0], own] == 0).all())


RULE = Rule(
    kind="dead_units",
    check=_check,
    why="A ReLU that is closed for every sample passes nothing on, neither forward nor backward, and can't recover.",
    wrong_when="Very small batches (units that are rarely open look closed), units that are meant to be sparse.",
    source=_SOURCE,
)
