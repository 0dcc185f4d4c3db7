"""Put a stream of events together into what would be read back of it: for trials, which keep no record."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence

from unvanish.schema.architecture import LayerSpec
from unvanish.schema.graph import Graph, Trace
from unvanish.schema.run import (
    PARAMETER_STATISTICS,
    ArchitectureEvent,
    BlockEvent,
    Event,
    GraphEvent,
    ModelEvent,
    ModelInfo,
    ModelRun,
    Snapshot,
    StepEvent,
    TraceEvent,
)

# one step: seconds, loss (None = no backward pass), clip, learning rate
_Step = tuple[float, float | None, float, float]
# the parameters of one step: per statistic the values of all of them
_Table = Sequence[Sequence[float]]


def assemble(events: Iterable[Event]) -> tuple[ModelRun, ...]:
    """One ModelRun per model that was announced, in that order. Nothing is thinned."""
    events = list(events)
    infos: dict[int, ModelInfo] = {e.info.index: e.info for e in events if isinstance(e, ModelEvent)}
    return tuple(_model(info, events) for _, info in sorted(infos.items()))


def _model(info: ModelInfo, events: list[Event]) -> ModelRun:
    single = [e for e in events if isinstance(e, StepEvent) and e.model == info.index]
    blocks = [e for e in events if isinstance(e, BlockEvent) and e.model == info.index]
    steps, tables = _all_steps(single, blocks)
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
        steps=array("q", steps),
        seconds=array("d", (seconds for seconds, _, _, _ in steps.values())),
        losses=array("d", (math.nan if loss is None else loss for _, loss, _, _ in steps.values())),
        parameter_steps=array("q", tables),
        parameter_stats=_columns(tables, len(info.parameters)),
        snapshots=tuple(snapshots),
        graphs=graphs,
        traces=tuple(sorted(traces, key=lambda t: (t.step, t.backward))),
        architecture=layers,
        unseen_losses=frozenset(step for step, (_, loss, _, _) in steps.items() if loss is None),
        clips=array("d", (clip for _, _, clip, _ in steps.values()) if blocks else ()),
        learning_rates=array("d", (rate for _, _, _, rate in steps.values()) if blocks else ()),
    )


def _all_steps(
    single: list[StepEvent], blocks: list[BlockEvent]
) -> tuple[dict[int, _Step], dict[int, _Table]]:
    """Steps and measured parameters by step, rising. Where a step came singly and in a block, the block counts."""
    steps: dict[int, _Step] = {}
    tables: dict[int, _Table] = {}
    for event in single:
        steps[event.step] = (event.seconds, event.loss, math.nan, math.nan)
        if event.rows is not None:
            tables[event.step] = list(zip(*event.rows, strict=True))
    for block in blocks:
        columns = zip(
            block.steps, block.seconds, block.losses, block.clips, block.learning_rates, strict=True
        )
        for step, seconds, loss, clip, rate in columns:
            steps[step] = (seconds, None if step in block.unseen_losses else loss, clip, rate)
        size = len(block.stats) // max(1, len(block.measured))
        for i, step in enumerate(block.measured):
            tables[step] = _rows(block.stats[i * size : (i + 1) * size])
    return dict(sorted(steps.items())), dict(sorted(tables.items()))


def _rows(values: array[float]) -> _Table:
    width = len(values) // len(PARAMETER_STATISTICS)
    return [values[s * width : (s + 1) * width] for s in range(len(PARAMETER_STATISTICS))]


def _columns(tables: dict[int, _Table], parameters: int) -> dict[str, array[float]]:
    """Row-major [steps x parameters] per statistic; NaN for a parameter that came later than a step."""
    made = {name: array("d") for name in PARAMETER_STATISTICS}
    for table in tables.values():
        for s, name in enumerate(PARAMETER_STATISTICS):
            row = array("d", table[s][:parameters] if table else ())
            row.extend([math.nan] * (parameters - len(row)))
            made[name].extend(row)
    return made
