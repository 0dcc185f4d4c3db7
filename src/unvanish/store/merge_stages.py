"""Stages of a pipeline, each on ranks of its own, as the one model that they are.

A stage hands the gradient of its input to the stage before, which takes it for that of its output: in what the two
recorded, these are one and the same norm at every traced pass. Stages are known by that, and by nothing else.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.graph import Graph, Operation, OperationStats, Trace
from unvanish.schema.run import PARAMETER_STATISTICS, ModelInfo, ModelRun

_SAME = 1e-5  # relative; the same numbers, sent from one process to the other
Place = tuple[int, int]
T = TypeVar("T")
Slot = tuple[int, int]  # (operation, which of its parameters)


@dataclass(frozen=True, slots=True)
class Chain:
    """Stages in the order of the forward pass: their places among all models, and where each enters the next."""

    places: tuple[int, ...]
    entries: tuple[Slot, ...]  # of all stages but the first


def chains(models: Sequence[ModelRun]) -> list[Chain]:
    """The pipelines among the models of a run."""
    after: dict[int, tuple[int, Slot]] = {}
    for i, first in enumerate(models):
        if not first.steps or len(first.unseen_losses) < len(first.steps):
            continue  # it computes a loss: it is the last
        found = [(j, slot) for j, other in enumerate(models) if j != i and (slot := entry(first, other))]
        if len(found) == 1:
            after[i] = found[0]
    begun = {j for j, _ in after.values()}
    out = []
    for start in sorted(set(after) - begun):
        places, entries = [start], []
        while places[-1] in after and after[places[-1]][0] not in places:
            place, slot = after[places[-1]]
            places.append(place)
            entries.append(slot)
        out.append(Chain(tuple(places), tuple(entries)))
    return out


def entry(first: ModelRun, second: ModelRun) -> Slot | None:
    """Where the output of one stage enters the other: the same slot at all passes that both traced; else None."""
    theirs = {(t.step, t.backward): t for t in second.traces}
    slots: set[Slot] | None = None
    for trace in first.traces:
        other = theirs.get((trace.step, trace.backward))
        if other is None or not trace.stats or trace.stats[-1].norm == 0:
            continue
        norm, graph = trace.stats[-1].norm, second.graphs[other.graph]
        handed = {
            (operation.index, i): value
            for operation, stats in zip(graph.operations, other.stats, strict=True)
            for i, (name, value) in enumerate(zip(operation.parameters, stats.parameter_norms, strict=True))
            if not name and value is not None
        }
        if not handed:
            continue  # dense traces leave it out
        here = {slot for slot, value in handed.items() if math.isclose(value, norm, rel_tol=_SAME)}
        slots = here if slots is None else slots & here
    return min(slots) if slots else None


def joined(stages: Sequence[ModelRun], entries: Sequence[Slot]) -> ModelRun:
    """One model of all stages. Names get their stage before them where two stages have the same."""
    stages = _named(stages)
    last = stages[-1]
    graphs: dict[str, Graph] = {}
    traces: list[Trace] = []
    for place in sorted(set.intersection(*({(t.step, t.backward) for t in s.traces} for s in stages))):
        passes = [next(t for t in s.traces if (t.step, t.backward) == place) for s in stages]
        own = [s.graphs[t.graph] for s, t in zip(stages, passes, strict=True)]
        key = hashlib.sha256("+".join(g.key for g in own).encode()).hexdigest()[:16]
        if key not in graphs:
            graphs[key] = Graph(key=key, operations=_operations(own, entries))
        traces.append(_trace(passes, own, entries, key))
    rows = _Rows(stages)
    return replace(
        last,
        info=_info(stages),
        parameter_steps=array("q", (first for first, _ in rows.spans)),
        parameter_until=array("q", (until for _, until in rows.spans) if rows.thinned else ()),
        parameter_stats={
            name: rows.columns([s.parameter_stats[name] for s in stages]) for name in PARAMETER_STATISTICS
        },
        parameter_extremes={
            name: (rows.extreme(name, 0), rows.extreme(name, 1))
            for name in (PARAMETER_STATISTICS if rows.thinned else ())
        },
        snapshots=tuple(
            replace(shot, parameter=shot.parameter + offset)
            for s, offset in zip(stages, _offsets(len(s.info.parameters) for s in stages), strict=True)
            for shot in s.snapshots
        ),
        graphs=graphs,
        traces=tuple(traces),
        architecture=tuple(layer for s in stages for layer in s.architecture),
    )


class _Rows:
    """The rows of statistics that all stages have."""

    def __init__(self, stages: Sequence[ModelRun]) -> None:
        self._stages = stages
        own = [
            {
                span: i
                for i, span in enumerate(
                    zip(s.parameter_steps, s.parameter_until or s.parameter_steps, strict=True)
                )
            }
            for s in stages
        ]
        self.spans = sorted(set(own[0]).intersection(*own[1:]))
        self._places = [[places[span] for span in self.spans] for places in own]
        self.thinned = any(first != until for first, until in self.spans)

    def columns(self, tables: Sequence[array[float]]) -> array[float]:
        """One table of [rows x parameters] per stage, side by side."""
        parts: list[NDArray[np.float64]] = [
            np.frombuffer(table, np.float64).reshape(len(s.parameter_steps), -1)[places]
            for s, table, places in zip(self._stages, tables, self._places, strict=True)
        ]
        made = array("d")
        if self.spans:
            made.frombytes(np.ascontiguousarray(np.concatenate(parts, axis=1)).tobytes())
        return made

    def extreme(self, name: str, side: int) -> array[float]:
        """The smallest (0) or largest values (1)."""
        return self.columns(
            [
                s.parameter_extremes[name][side] if s.parameter_extremes else s.parameter_stats[name]
                for s in self._stages
            ]
        )


# --- names -------------------------------------------------------------------------------------------------


def _named(stages: Sequence[ModelRun]) -> list[ModelRun]:
    names = [{p.name for p in s.info.parameters} | {x.name for x in s.architecture} for s in stages]
    if sum(map(len, names)) == len(set().union(*names)):
        return list(stages)
    return [_prefixed(s, f"stage{i}") for i, s in enumerate(stages)]


def _prefixed(stage: ModelRun, prefix: str) -> ModelRun:
    def named(name: str) -> str:
        return f"{prefix}.{name}" if name else prefix

    graphs = {
        key: replace(
            graph,
            operations=tuple(
                replace(
                    o,
                    module=None if o.module is None else named(o.module),
                    parameters=tuple(named(p) if p else p for p in o.parameters),
                )
                for o in graph.operations
            ),
        )
        for key, graph in stage.graphs.items()
    }
    parameters = tuple(replace(p, name=named(p.name)) for p in stage.info.parameters)
    layers = tuple(replace(layer, name=named(layer.name)) for layer in stage.architecture)
    traces = tuple(
        replace(t, through_time=tuple(replace(one, module=named(one.module)) for one in t.through_time))
        for t in stage.traces
    )
    info = replace(stage.info, parameters=parameters)
    return replace(stage, info=info, graphs=graphs, traces=traces, architecture=layers)


def _info(stages: Sequence[ModelRun]) -> ModelInfo:
    infos = [s.info for s in stages]
    shifts = _offsets(len(i.optimizers) for i in infos)
    parameters = [
        replace(p, optimizer=None if p.optimizer is None else p.optimizer + shift)
        for info, shift in zip(infos, shifts, strict=True)
        for p in info.parameters
    ]
    optimizers = [o for info in infos for o in info.optimizers]
    return replace(
        infos[-1],
        name=" + ".join(dict.fromkeys(i.name for i in infos)),
        class_name=" + ".join(dict.fromkeys(i.class_name for i in infos)),
        parameters=tuple(replace(p, index=i) for i, p in enumerate(parameters)),
        optimizers=tuple(replace(o, index=i) for i, o in enumerate(optimizers)),
        training_modules=sum(i.training_modules for i in infos),
    )


# --- graphs and traces -------------------------------------------------------------------------------------


def _offsets(lengths: Iterable[int]) -> list[int]:
    return [0, *accumulate(lengths)][:-1]


def _operations(graphs: Sequence[Graph], entries: Sequence[Slot]) -> tuple[Operation, ...]:
    """All stages' operations one after the other; the input of a stage is an edge to the end of the one before."""
    out: list[Operation] = []
    slots: list[Slot | None] = [None, *entries]
    for graph, slot in zip(graphs, slots, strict=True):
        offset = len(out)
        for o in graph.operations:
            parents, parameters = tuple(p + offset for p in o.parents), o.parameters
            if slot is not None and o.index == slot[0]:
                parents, parameters = (*parents, offset - 1), _without(parameters, slot[1])
            out.append(replace(o, index=o.index + offset, parents=parents, parameters=parameters))
    return tuple(out)


def _trace(passes: Sequence[Trace], graphs: Sequence[Graph], entries: Sequence[Slot], key: str) -> Trace:
    stats: list[OperationStats] = []
    slots: list[Slot | None] = [None, *entries]
    for one, slot in zip(passes, slots, strict=True):
        offset = len(stats)
        for s in one.stats:
            edges, norms = s.edge_norms, s.parameter_norms
            if slot is not None and s.operation == slot[0]:
                edges, norms = (*edges, norms[slot[1]]), _without(norms, slot[1])
            stats.append(replace(s, operation=s.operation + offset, edge_norms=edges, parameter_norms=norms))
    last, offset = passes[-1], len(stats) - len(graphs[-1].operations)
    return replace(
        last,
        graph=key,
        stats=tuple(stats),
        output=None if last.output is None else last.output + offset,
        through_time=tuple(t for one in passes for t in one.through_time),
    )


def _without(values: tuple[T, ...], index: int) -> tuple[T, ...]:
    return values[:index] + values[index + 1 :]
