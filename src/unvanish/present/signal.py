"""The signal map: how much of the backprop signal reaches each weighted layer, at each traced step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from unvanish.present.gains import layer_gains, skipped_columns
from unvanish.schema.graph import Graph, Operation, OperationStats, Trace, place
from unvanish.schema.run import ModelRun

MAP_COLUMNS = 400
SLACK = 0.1  # of the span, by which the colour scale stretches rather than clip a few cells by a hair
MIN_SPAN = 2.0  # decades; a net whose layers differ by less than this must not look dramatic
Cell = float | str  # a log10, or one of the marks below
NAN, ZERO, UNMEASURED = "nan", "zero", "unmeasured"
_BAD_FIRST = {NAN: 0, ZERO: 1}


def weighted_operations(graph: Graph) -> dict[str, Operation]:
    """The operations that apply a weight, by a name that is unique in the graph, in execution order.

    A layer that is used several times (a recurrent net) has one entry per use: "rnn", "rnn #2", ...
    """
    found: dict[str, Operation] = {}
    for operation in graph.operations:
        if operation.kind != "weight" or operation.module is None:
            continue
        stem = _stem(operation)
        name, use = stem, 1
        while name in found:
            use += 1
            name = f"{stem} #{use}"
        found[name] = operation
    return found


def relative_signal(
    trace: Trace,
    graph: Graph,
    gauge_free: bool | None = None,
    named: Mapping[str, Operation] | None = None,
) -> dict[str, Cell]:
    """log10 of each weighted layer's backprop signal over that of the model's output layer.

    The signal of a layer is norm * sqrt(count) * output_std, which rescaling a layer does not change, or the
    plain norm where `gauge_free` is False; None = gauge-free if every layer's output_std is known. A cell is
    a float, or "nan" (NaN or Inf in it), "zero" (exactly nothing arrives), "unmeasured". `named`: the graph's
    `weighted_operations`, where they are known already.
    """
    stats = {s.operation: s for s in trace.stats}
    operations = weighted_operations(graph) if named is None else named
    if trace.output is not None:
        operations = {k: o for k, o in operations.items() if o.index <= trace.output}
    if gauge_free is None:
        gauge_free = is_gauge_free(trace, graph)
    cells: dict[str, Cell] = {}
    signals = {name: _signal(stats.get(o.index), gauge_free) for name, o in operations.items()}
    finite = [v for v in signals.values() if isinstance(v, float)]
    last = next(reversed(signals.values()), UNMEASURED)
    # the output layer itself may hold a NaN or a zero: the rest is then told relative to the largest
    reference = last if isinstance(last, float) else max(finite, default=1.0)
    for name, value in signals.items():
        cells[name] = math.log10(value) - math.log10(reference) if isinstance(value, float) else value
    return cells


def is_gauge_free(trace: Trace, graph: Graph, named: Mapping[str, Operation] | None = None) -> bool:
    """True if the spread of the output is known, and not zero, for every weighted layer that was measured.

    A head that starts at zero has no spread, though a signal passes it: then plain norms tell more.
    """
    stats = {s.operation: s for s in trace.stats}
    operations = weighted_operations(graph) if named is None else named
    seen = [stats[o.index] for o in operations.values() if o.index in stats]
    return bool(seen) and all(s.output_std is not None and s.output_std != 0 for s in seen)


def named_operations(model: ModelRun) -> dict[str, dict[str, Operation]]:
    """`weighted_operations` of every graph that was traced, by the graph's key."""
    keys = dict.fromkeys(t.graph for t in model.traces if t.graph in model.graphs)
    return {key: weighted_operations(model.graphs[key]) for key in keys}


def signal_map(model: ModelRun, named: Mapping[str, Mapping[str, Operation]] | None = None) -> dict[str, Any]:
    """The layer x step map: rows in execution order, columns in time, colour limits robust to a spike."""
    named = named_operations(model) if named is None else named
    traces = [t for t in model.traces if t.graph in named]
    gauge_free, rows, columns = _columns(model, traces, named)
    steps, cells = _shorten(rows, columns)
    low, high = colour_limits(cells)
    last = profile(rows, cells)
    return {
        "rows": rows,
        "steps": steps,
        "cells": _rounded(cells),
        "skipped": skipped_columns(model, steps),
        "traced": len(columns),
        "gauge_free": gauge_free,
        "low": low,
        "high": high,
        "clipped": sum(isinstance(c, float) and not low <= c <= high for row in cells for c in row),
        "counts": {m: sum(c == m for row in cells for c in row) for m in (NAN, ZERO, UNMEASURED)},
        "profile": last,
        "gains": layer_gains(rows, last, model.graphs[traces[-1].graph], named[traces[-1].graph])
        if traces
        else [],
        "summary": map_summary(rows, cells),
    }


def signal_window(model: ModelRun, first: int, last: int) -> dict[str, Any]:
    """The map's columns from step `first` to step `last`, both included, for the rows of `signal_map`.

    Nothing is merged where at most MAP_COLUMNS steps in it were traced: `exact` says so.
    """
    named = named_operations(model)
    traces = [t for t in model.traces if t.graph in named]
    _, rows, columns = _columns(model, traces, named)
    inside = {step: column for step, column in columns.items() if first <= step <= last}
    steps, cells = _shorten(rows, inside)
    return {
        "rows": rows,
        "steps": steps,
        "cells": _rounded(cells),
        "skipped": skipped_columns(model, steps),
        "traced": len(inside),
        "exact": len(inside) == len(steps),
    }


def profile(rows: Sequence[str], cells: Sequence[Sequence[Cell]]) -> list[Cell]:
    """The last thing that was measured of each row."""
    last = [next((c for c in reversed(row) if c != UNMEASURED), UNMEASURED) for row in cells[: len(rows)]]
    return [round(c, 2) if isinstance(c, float) else c for c in last]


def colour_limits(cells: Sequence[Sequence[Cell]]) -> tuple[float, float]:
    """Limits of the colour scale, in decades: the usual range of every row, without what is rare in time.

    A quantile over all cells would clip the one starved layer of a deep net; a quantile per row clips only
    spikes in time. A healthy net is not made to look dramatic: the span is at least MIN_SPAN, 0 included.
    """
    lows, highs, everything = [-MIN_SPAN], [0.0], [0.0]
    for row in cells:
        values = [c for c in row if isinstance(c, float)]
        if values:
            low, high = np.quantile(np.array(values), (0.1, 0.9), method="closest_observation")
            lows.append(float(low))
            highs.append(float(high))
            everything += (min(values), max(values))
    low, high = min(lows), max(highs)
    room = SLACK * (high - low)
    low = min(everything) if min(everything) >= low - room else low
    high = max(everything) if max(everything) <= high + room else high
    low, high = min(low, -MIN_SPAN), max(high, 0.0)
    return math.floor(low * 100) / 100, math.ceil(high * 100) / 100


def _columns(
    model: ModelRun, traces: Sequence[Trace], named: Mapping[str, Mapping[str, Operation]]
) -> tuple[bool, list[str], dict[int, dict[str, Cell]]]:
    """Whether the signal is gauge-free; the rows; of each traced step the cells by row."""
    gauge_free = bool(traces) and all(is_gauge_free(t, model.graphs[t.graph], named[t.graph]) for t in traces)
    columns: dict[int, dict[str, Cell]] = {}
    for trace in traces:
        signal = relative_signal(trace, model.graphs[trace.graph], gauge_free, named[trace.graph])
        column = columns.setdefault(trace.step, {})
        for name, cell in signal.items():  # the first backward of a step that measured the layer counts
            if column.get(name, UNMEASURED) == UNMEASURED:
                column[name] = cell
    rows = _row_order(named.values())
    rows = [r for r in rows if any(c.get(r, UNMEASURED) != UNMEASURED for c in columns.values())]
    return gauge_free, rows, columns


def _rounded(cells: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
    return [[round(c, 2) if isinstance(c, float) else c for c in row] for row in cells]


def _stem(operation: Operation) -> str:
    """The layer's name: that of its weight where it has one, else of the module that ran it."""
    for name in operation.parameters:
        owner, _, leaf = name.rpartition(".")
        if owner and leaf != "bias":
            return owner if leaf == "weight" else f"{owner}.{leaf.removesuffix('_weight')}"
    return operation.module or operation.name


def _signal(stats: OperationStats | None, gauge_free: bool) -> Cell:
    if stats is None:
        return UNMEASURED
    value = stats.norm
    if gauge_free:
        value *= math.sqrt(stats.count) * (stats.output_std or 0.0)
    if stats.nonfinite or not math.isfinite(value):
        return NAN
    return value if value > 0 else ZERO


def _row_order(graphs: Iterable[Iterable[str]]) -> list[str]:
    """One order for the rows of several graphs: a new row goes behind the one it follows in its graph."""
    order: list[str] = []
    for names in graphs:
        place = 0
        for name in names:
            if name in order:
                place = order.index(name) + 1
            else:
                order.insert(place, name)
                place += 1
    return order


def _shorten(
    rows: Sequence[str], columns: Mapping[int, Mapping[str, Cell]]
) -> tuple[list[int], list[list[Cell]]]:
    """At most MAP_COLUMNS columns. NaN and zero of a bucket win over its numbers, so that none is hidden."""
    steps = sorted(columns)
    bounds = np.linspace(0, len(steps), min(len(steps), MAP_COLUMNS) + 1).astype(int)
    buckets = [steps[a:b] for a, b in pairwise(bounds.tolist())]
    cells = [[_merge([columns[s].get(r, UNMEASURED) for s in bucket]) for bucket in buckets] for r in rows]
    return [bucket[0] for bucket in buckets], cells


def _merge(cells: Sequence[Cell]) -> Cell:
    if len(cells) == 1:
        return cells[0]
    marks = [c for c in cells if isinstance(c, str) and c in _BAD_FIRST]
    if marks:
        return min(marks, key=lambda m: _BAD_FIRST[str(m)])
    values = [c for c in cells if isinstance(c, float)]
    return float(np.median(values)) if values else UNMEASURED


def map_summary(rows: Sequence[str], cells: Sequence[Sequence[Cell]]) -> str:
    """What a map comes to, in one sentence."""
    last = dict(zip(rows, profile(rows, cells), strict=True))
    if not last:
        return "No backward pass was traced."
    zero = [r for r, c in last.items() if c == ZERO]
    values = {r: c for r, c in last.items() if isinstance(c, float)}
    if zero:
        return f"At the last traced step exactly nothing arrives at {len(zero)} of {len(rows)} layers."
    if not values:
        return "At the last traced step no layer has a finite signal."
    worst = min(values, key=lambda r: values[r])
    best = max(values, key=lambda r: values[r])
    when = "At the last traced step"
    if values[worst] < -MIN_SPAN / 2:
        return f"{when} {place(worst)} gets {-values[worst]:.1f} decades less than the output layer."
    if values[best] > MIN_SPAN / 2:
        return f"{when} {place(best)} gets {values[best]:.1f} decades more than the output layer."
    return "At the last traced step every layer gets the signal within a factor of ten of the output layer."
