"""How much of the signal reaches the data's end of a net, where it runs away, and what cuts it off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unvanish.diagnose.facts import LOOK_ALIKE, THRESHOLD, LayerSignal
from unvanish.diagnose.path import decades, layer_name
from unvanish.diagnose.rules.dead_units import ALL, MOST
from unvanish.diagnose.rules.vanishing import FORGOTTEN, Faded, faded_through_time, sequences_of
from unvanish.precheck.measure import Measured

LIMIT = -THRESHOLD  # decades of amplitude, either way: e^3
FEWEST_UNITS = 4
NORMED = 0.5  # of the layers have a norm behind them


@dataclass(frozen=True, slots=True)
class Gate:
    """An activation whose units are closed for every sample: behind which layer, and which share of them."""

    layer: str
    closed: float
    units: int
    activation: str  # autograd's name of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The signal of one net, in decades of amplitude relative to its output.

    `entry`: at the data's end, the best-fed of the first third of the layers; `starved`: the layers below the limit,
    in order of execution. `peak`: where it is largest. `forward`: how far the outputs' spread grows from the first
    layer on (negative: shrinks). `told_apart`: share of what differs between samples that is left at the last layer.
    `faded`: the recurrence that loses most on its way back through time.
    """

    entry: float
    most_starved: LayerSignal | None
    starved: tuple[str, ...]
    peak: float
    peak_at: LayerSignal | None
    forward: float
    forward_at: str
    closed: tuple[Gate, ...]
    nonfinite: tuple[str, ...]
    told_apart: float | None
    faded: Faded | None

    @property
    def dead(self) -> tuple[Gate, ...]:
        """Layers that cut the signal off."""
        return tuple(gate for gate in self.closed if gate.closed >= ALL)

    @property
    def carries(self) -> bool:
        """Neither lost nor run away on the whole way, forward or backward, and nothing cut off."""
        within = abs(self.entry) <= LIMIT and self.peak <= LIMIT and self.forward <= LIMIT
        apart = self.told_apart is None or self.told_apart >= LOOK_ALIKE
        lasts = self.faded is None or self.faded.decades >= FORGOTTEN
        return within and apart and lasts and not self.dead and not self.nonfinite

    @property
    def worst(self) -> float:
        """The larger of what is lost and what is gained, with its sign: what a change is ranked by."""
        return max((self.entry, self.peak), key=abs)


def flow_of(measured: Measured) -> Flow:
    """Read it off the loss-free trace."""
    profile = measured.flow.profiles[0] if measured.flow.profiles else None
    signals: tuple[LayerSignal, ...] = () if profile is None else profile.layers
    trace = measured.run.traces[0]
    operations = measured.run.graphs[trace.graph].operations
    normed = any(o.kind == "norm" for o in operations)
    specs = measured.run.architecture
    # behind a norm a layer's own scale says nothing; where few have one, the others' scale tells
    free = sum(spec.norm != "none" for spec in specs) >= NORMED * max(1, len(specs))
    level = {s.operation: s.scaled if free else s.raw for s in signals}
    grown = {s.operation: min(s.raw, s.scaled) if normed else s.raw for s in signals}
    names = list(dict.fromkeys(s.layer for s in signals))
    best: dict[str, float] = {}
    for s in signals:
        best[s.layer] = max(best.get(s.layer, -math.inf), level[s.operation])
    early = names[: max(1, len(names) // 3)]
    top = max(signals, key=lambda s: grown[s.operation], default=None)
    least = min(signals, key=lambda s: level[s.operation], default=None)
    forward, where = (0.0, "") if normed else _forward(measured, signals)
    return Flow(
        entry=max((best[n] for n in early), default=math.nan),
        most_starved=least,
        starved=tuple(n for n in names if best[n] < -LIMIT),
        peak=0.0 if top is None else grown[top.operation],
        peak_at=top,
        forward=forward,
        forward_at=where,
        closed=_closed(measured),
        nonfinite=tuple(dict.fromkeys(s.layer for s in signals if s.nonfinite)),
        told_apart=measured.flow.told_apart,
        faded=None if profile is None else faded_through_time(profile, sequences_of(profile.traced)),
    )


def _forward(measured: Measured, signals: Sequence[LayerSignal]) -> tuple[float, str]:
    stats = measured.run.traces[0].stats
    known = [(s.layer, v) for s in signals if (v := stats[s.operation].output_std) is not None and v > 0]
    if len(known) < 2:
        return 0.0, ""
    layer, top = max(known[1:], key=lambda pair: pair[1])
    return decades(top, known[0][1]), layer


def _closed(measured: Measured) -> tuple[Gate, ...]:
    trace = measured.run.traces[0]
    operations = measured.run.graphs[trace.graph].operations
    found = []
    for operation, stats in zip(operations, trace.stats, strict=True):
        if not stats.units or stats.closed_units is None or stats.units < FEWEST_UNITS:
            continue
        if stats.closed_units >= MOST * stats.units:
            current = operation
            while current.parents and current.kind != "weight":
                current = operations[max(current.parents)]
            share = stats.closed_units / stats.units
            found.append(Gate(layer_name(current), share, stats.units, operation.name))
    return tuple(found)
