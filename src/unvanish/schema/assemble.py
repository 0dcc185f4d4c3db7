"""Put a stream of events together into what would be read back of it: for trials, which keep no record."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable

from unvanish.schema.architecture import LayerSpec
from unvanish.schema.graph import Graph, Trace
from unvanish.schema.run import (
    PARAMETER_STATISTICS,
    ArchitectureEvent,
    Event,
    GraphEvent,
    ModelEvent,
    ModelInfo,
    ModelRun,
    Snapshot,
    StepEvent,
    TraceEvent,
)


def assemble(events: Iterable[Event]) -> tuple[ModelRun, ...]:
    """One ModelRun per model that was announced, in that order."""
    events = list(events)
    infos: dict[int, ModelInfo] = {e.info.index: e.info for e in events if isinstance(e, ModelEvent)}
    return tuple(_model(info, events) for _, info in sorted(infos.items()))


def _model(info: ModelInfo, events: list[Event]) -> ModelRun:
    steps = [e for e in events if isinstance(e, StepEvent) and e.model == info.index]
    measured = [e for e in steps if e.rows is not None]
    graphs: dict[str, Graph] = {}
    traces: list[Trace] = []
    layers: tuple[LayerSpec, ...] = ()
    snapshots: list[Snapshot] = []
    for event in events:
        if isinstance(event, GraphEvent) and event.model == info.index:
            graphs[event.graph.key] = event.graph
        elif isinstance(event, TraceEvent) and event.trace.model == info.index:
            traces.append(event.trace)
        elif isinstance(event, ArchitectureEvent) and event.model == info.index:
            layers = event.layers
        elif isinstance(event, Snapshot) and event.model == info.index:
            snapshots.append(event)
    return ModelRun(
        info=info,
        steps=array("q", (e.step for e in steps)),
        seconds=array("d", (e.seconds for e in steps)),
        losses=array("d", (math.nan if e.loss is None else e.loss for e in steps)),
        parameter_steps=array("q", (e.step for e in measured)),
        parameter_stats={
            name: array("d", (row[i] for e in measured for row in e.rows or ()))
            for i, name in enumerate(PARAMETER_STATISTICS)
        },
        snapshots=tuple(snapshots),
        graphs=graphs,
        traces=tuple(sorted(traces, key=lambda t: (t.step, t.backward))),
        architecture=layers,
        unseen_losses=frozenset(e.step for e in steps if e.loss is None),
    )
