"""What opens when a layer of the map is chosen: its signal's spread over time, sizes, dead and saturated units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.present.series import number, spread
from unvanish.schema.graph import EXPONENT_BINS, EXPONENT_FLOOR, Graph, Operation, OperationStats, Trace
from unvanish.schema.run import ModelRun

COLUMNS = 100
LEAST_COLUMNS = 12
LAYER_CELLS = 120_000  # layers x columns of one model; each is a text of up to 64 signs and some numbers
SIZE_CELLS = 600_000  # numbers of all gradient and update sizes of one model
LEVELS = "0123456789abcdefghijklmnopqrstuvwxyz"  # how full a bin is: 0 = empty, then the log of its share
_DECADES_OF_SHARE = 4.0  # the faintest level that is drawn stands for one element in ten thousand
_BIN = 2 * math.log10(2)  # decades of |x| in one bin
# the largest slope of an activation that the trace may not name; above it nothing can be (SCIENCE, saturation)
_SLOPES = {"Sigmoid": 0.25, "Tanh": 1.0, "Softsign": 1.0, "Hardtanh": 1.0, "Hardsigmoid": 1 / 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """One layer in one trace: what was measured at it, and at the activation behind it (None = there is none)."""

    step: int
    stats: OperationStats
    activation: tuple[Operation, OperationStats] | None


def layers_view(
    model: ModelRun, rows: Sequence[str], named: Mapping[str, Mapping[str, Operation]]
) -> list[dict[str, Any]]:
    """One entry for each of `rows`, in that order. `named`: per graph, its weighted operations by row name."""
    seen: dict[str, list[_Seen]] = {row: [] for row in rows}
    operations: dict[str, Operation] = {}
    behind = {key: _activations(model.graphs[key], list(ops.values())) for key, ops in named.items()}
    for trace in model.traces:
        if trace.graph in named:
            _collect(trace, named[trace.graph], behind[trace.graph], seen, operations)
    columns = max(min(LAYER_CELLS // max(len(rows), 1), COLUMNS), LEAST_COLUMNS)
    return [_layer(row, operations.get(row), _thin(seen[row], columns)) for row in rows]


def sizes_view(model: ModelRun) -> dict[str, Any]:
    """log10 of the rms of every parameter's gradient and update over the steps; None where it is 0 or no number."""
    names = [p.name for p in model.info.parameters]
    steps = list(model.parameter_steps)
    gradient, update = model.parameter_stats.get("gradient_rms"), model.parameter_stats.get("update_rms")
    if not names or not steps or gradient is None or update is None:
        return {"steps": [], "parameters": []}
    shape = (len(steps), len(names))
    if len(gradient) != len(update) or len(gradient) != shape[0] * shape[1]:
        return {"steps": [], "parameters": []}
    columns = max(min(SIZE_CELLS // (2 * len(names)), 120), 8)
    bounds = np.linspace(0, len(steps), min(len(steps), columns) + 1).astype(int)
    down = [_log_means(np.frombuffer(v, dtype=np.float64).reshape(shape), bounds) for v in (gradient, update)]
    return {
        "steps": [steps[i] for i in bounds[:-1].tolist()],
        "parameters": [
            {"name": name, "gradient": _column(down[0], i), "update": _column(down[1], i)}
            for i, name in enumerate(names)
        ],
    }


def _log_means(values: NDArray[np.float64], bounds: NDArray[np.int_]) -> NDArray[np.float64]:
    """log10 of the mean of each bucket of rows, NaN where that is no number above 0."""
    good = np.isfinite(values)
    # divided by the largest first: a sum of values near a float's end would leave it
    top = np.where(good, values, 0.0).max(axis=0, initial=1e-300)
    sums = np.add.reduceat(np.where(good, values / top, 0.0), bounds[:-1], axis=0)
    counts = np.add.reduceat(good.astype(np.int64), bounds[:-1], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: NDArray[np.float64] = np.log10(sums / counts) + np.log10(top)
    return np.where(np.isfinite(logs), logs, np.nan)


def _column(values: NDArray[np.float64], i: int) -> list[float | None]:
    return [None if math.isnan(v) else round(v, 2) for v in values[:, i].tolist()]


def _activations(graph: Graph, weighted: Sequence[Operation]) -> dict[int, Operation]:
    """The activation that a weighted operation's result runs into, by the operation's index."""
    users: dict[int, list[Operation]] = {}
    for operation in graph.operations:
        for parent in operation.parents:
            users.setdefault(parent, []).append(operation)
    found = {}
    for operation in weighted:
        here = operation
        for _ in range(6):  # a norm, a view, a dropout may lie between
            after = users.get(here.index, [])
            if not after or after[0].kind == "weight" or len(after) > 1:
                # SiLU and the like are written as products too: the first that is an activation counts
                after = [o for o in after if o.kind == "activation"][:1]
            if not after:
                break
            here = after[0]
            if here.kind == "activation":
                found[operation.index] = here
                break
    return found


def _collect(
    trace: Trace,
    named: Mapping[str, Operation],
    behind: Mapping[int, Operation],
    seen: dict[str, list[_Seen]],
    operations: dict[str, Operation],
) -> None:
    stats = {s.operation: s for s in trace.stats}
    for row, operation in named.items():
        measured = stats.get(operation.index)
        if measured is None or row not in seen:
            continue
        operations.setdefault(row, operation)
        after = behind.get(operation.index)
        after_stats = stats.get(after.index) if after else None
        pair = (after, after_stats) if after and after_stats else None
        if not seen[row] or seen[row][-1].step != trace.step:  # as in the map: the first of a step counts
            seen[row].append(_Seen(step=trace.step, stats=measured, activation=pair))


def _thin(seen: Sequence[_Seen], columns: int) -> list[_Seen]:
    return [seen[i] for i in spread(len(seen), columns)]


def _layer(row: str, operation: Operation | None, seen: Sequence[_Seen]) -> dict[str, Any]:
    low, columns = histogram([s.stats.exponents for s in seen])
    return {
        "name": row,
        "operation": operation.name if operation else "",
        "module_class": operation.module_class if operation else None,
        "parameters": list(operation.parameters) if operation else [],
        "steps": [s.step for s in seen],
        "rms": [_log_rms(s.stats) for s in seen],
        "zeros": [_share(s.stats.zeros, s.stats.sampled or s.stats.count) for s in seen],
        "output_mean": [number(s.stats.output_mean, 3) for s in seen],
        "output_std": [number(s.stats.output_std, 3) for s in seen],
        "histogram": {"low": low, "bin": round(_BIN, 6), "columns": columns},
        "activation": _activation(seen),
    }


def histogram(counts: Sequence[Sequence[int]]) -> tuple[float, list[str]]:
    """Where the first bin begins (log10 of |x|), and one text for each column: a sign of LEVELS for each bin.

    Bins that are empty in every column are left out at both ends. A column without a histogram is "".
    """
    filled = [i for column in counts for i, n in enumerate(column[:EXPONENT_BINS]) if n > 0]
    if not filled:
        return 0.0, ["" for _ in counts]
    first, last = min(filled), max(filled)
    low = (EXPONENT_FLOOR + 2 * first) * math.log10(2)
    return round(low, 4), [_levels(column[first : last + 1]) for column in counts]


def _levels(column: Sequence[int]) -> str:
    whole = sum(column)
    if whole <= 0:
        return ""
    top = len(LEVELS) - 1
    signs = []
    for n in column:
        depth = 1 + math.log10(n / whole) / _DECADES_OF_SHARE if n > 0 else 0.0
        signs.append(LEVELS[max(1, round(top * depth))] if n > 0 else LEVELS[0])
    return "".join(signs)


def _activation(seen: Sequence[_Seen]) -> dict[str, Any] | None:
    """How much the activation behind the layer passes: its gain beside the largest it can have, and closed units."""
    pairs = [(s.step, *s.activation) for s in seen if s.activation is not None]
    if not pairs:
        return None
    name = pairs[-1][1].name
    bound = pairs[-1][2].bound or _SLOPES.get(name)
    gains = [_passes(stats) for _, _, stats in pairs]
    closed = [_share(stats.closed_units, stats.units) for _, _, stats in pairs]
    return {
        "name": name,
        "steps": [step for step, _, _ in pairs],
        "gain": [number(g, 3) for g in gains],
        "bound": number(bound, 4),
        "closed": closed,
        "units": next((stats.units for _, _, stats in reversed(pairs) if stats.units), None),
        "summary": _activation_summary(name, gains, bound, closed),
    }


def _activation_summary(
    name: str, gains: Sequence[float | None], bound: float | None, closed: Sequence[float | None]
) -> str:
    dead = [c for c in closed if c is not None]
    if dead and dead[-1] > 0:
        return (
            f"{100 * dead[-1]:.0f} % of the {name}'s units passed nothing on for any sample at the last look."
        )
    known = [g for g in gains if g is not None]
    if bound and known:
        passed = f"The {name} lets {known[-1]:.2g} of the signal through at the last look"
        return f"{passed}; {bound:.2g} is the most it can."
    if dead:
        return f"Every unit of the {name} passed something on."
    return f"The {name} lets {known[-1]:.2g} of the signal through at the last look." if known else ""


def _passes(stats: OperationStats) -> float | None:
    edges = [e for e in stats.edge_norms if e is not None]
    if not edges or not stats.norm > 0 or not math.isfinite(stats.norm):
        return None
    gain = max(edges) / stats.norm
    return gain if math.isfinite(gain) else None


def _log_rms(stats: OperationStats) -> float | None:
    if not stats.count or not stats.norm > 0 or not math.isfinite(stats.norm):
        return None
    return round(math.log10(stats.norm) - 0.5 * math.log10(stats.count), 2)


def _share(part: int | None, whole: int | None) -> float | None:
    return None if part is None or not whole else round(min(part / whole, 1.0), 4)
