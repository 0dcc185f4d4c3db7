"""Events to rows of the record: plain tuples in the order of layout.TABLES. The hot side of the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from unvanish.schema.graph import Graph, OperationStats, Trace
from unvanish.schema.run import (
    PARAMETER_STATISTICS,
    ArchitectureEvent,
    BlockEvent,
    Event,
    GraphEvent,
    Incident,
    ModelEvent,
    ModelInfo,
    PlaceEvent,
    Shard,
    Skipped,
    Snapshot,
    StepEvent,
    TraceEvent,
)
from unvanish.store.layout import SNAPSHOT_COLUMNS

Row = tuple[Any, ...]
RANK, RANKS = "unvanish.rank", "unvanish.ranks"  # keys of `extra`, which read_run gives as RunInfo's


def text(value: str | None) -> str | bytes | None:
    """What SQLite can hold of a str: itself, or its bytes where it has lone surrogates."""
    if value is None or value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")
    return value


def untext(value: Any) -> Any:
    """The inverse of `text`."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def missing(**values: object) -> str:
    """The `not_measured` of a row: the names whose value is None (a NaN becomes NULL too)."""
    return " ".join(name for name, value in values.items() if value is None)


@dataclass(slots=True)
class Batch:
    """The rows of one write, per table.

    `models`, `architectures` and `graphs` replace older rows; `blocks` and `traces` are to be packed.
    """

    first_trace: int
    rows: dict[str, list[Row]] = field(default_factory=dict)
    models: dict[int, ModelInfo] = field(default_factory=dict)
    architectures: dict[int, ArchitectureEvent] = field(default_factory=dict)
    graphs: dict[tuple[int, str], Graph] = field(default_factory=dict)
    blocks: list[BlockEvent] = field(default_factory=list)
    traces: list[tuple[int, Trace]] = field(default_factory=list)
    next_trace: int = 0
    ranks: int = 0  # processes that train together, where this batch says so

    def __post_init__(self) -> None:
        """Count traces on from the last write."""
        self.next_trace = self.first_trace

    def table(self, name: str) -> list[Row]:
        """The list that rows for this table are appended to."""
        return self.rows.setdefault(name, [])


def encode(events: Iterable[Event], first_trace: int) -> Batch:
    """All events as rows. Raises TypeError for what is no event."""
    batch = Batch(first_trace)
    for event in events:
        encoder = _ENCODERS.get(type(event))
        if encoder is None:
            raise TypeError(f"{type(event).__name__} is not an event of a run")
        encoder(batch, event)
    for info in batch.models.values():
        _model_rows(batch, info)
    for architecture in batch.architectures.values():
        _layer_rows(batch, architecture)
    for (model, key), graph in batch.graphs.items():
        _graph_rows(batch, model, key, graph)
    return batch


def _model(batch: Batch, event: ModelEvent) -> None:
    batch.models[event.info.index] = event.info


def place_rows(rank: int, ranks: int) -> list[Row]:
    """Rows of `extra`: which of how many processes wrote the record."""
    return [(RANK, str(rank)), (RANKS, str(ranks))]


def _place(batch: Batch, event: PlaceEvent) -> None:
    batch.ranks = event.ranks
    batch.table("extra").extend(place_rows(event.rank, event.ranks))


def _architecture(batch: Batch, event: ArchitectureEvent) -> None:
    batch.architectures[event.model] = event


def _graph(batch: Batch, event: GraphEvent) -> None:
    batch.graphs[event.model, event.graph.key] = event.graph


def _step(batch: Batch, event: StepEvent) -> None:
    model, step, rows = event.model, event.step, event.rows
    not_measured = missing(loss=event.loss, parameters=rows)
    batch.table("steps").append((model, step, event.seconds, event.loss, not_measured, 0))
    if rows:
        batch.table("parameter_stats").extend((model, step, i, *row) for i, row in enumerate(rows))


def _block(batch: Batch, event: BlockEvent) -> None:
    """Keep a block to be packed, if it is what it says: a wrong one could never be read back."""
    steps = np.asarray(memoryview(event.steps))
    measured = np.asarray(memoryview(event.measured))
    columns = (event.seconds, event.losses, event.clips, event.learning_rates)
    width = len(measured) * len(PARAMETER_STATISTICS)
    if any(len(column) != len(steps) for column in columns):
        raise TypeError("the columns of a block of steps have different lengths")
    if (np.diff(steps) <= 0).any() or not np.isin(measured, steps).all() or (np.diff(measured) <= 0).any():
        raise TypeError("the steps of a block do not rise, or others than its steps are measured")
    if len(event.stats) % width if width else len(event.stats):
        raise TypeError(f"{len(event.stats)} statistics are no table for {len(measured)} measured steps")
    if len(steps):
        batch.blocks.append(event)


def block_rows(batch: Batch, event: BlockEvent, steps: list[int], measured: list[int]) -> None:
    """Add some steps of a block to the tables: of `steps` (places in it) the loss, of `measured` the parameters."""
    stats = np.asarray(memoryview(event.stats))
    tables = stats.reshape(len(event.measured), len(PARAMETER_STATISTICS), -1) if measured else stats
    with_parameters = set()
    for place in measured:
        step = event.measured[place]
        with_parameters.add(step)
        rows = tables[place].T.tolist()
        batch.table("parameter_stats").extend((event.model, step, i, *row) for i, row in enumerate(rows))
    at_measured = np.searchsorted(np.asarray(memoryview(event.steps)), sorted(with_parameters)).tolist()
    for place in sorted({*steps, *at_measured}):
        step = event.steps[place]
        loss = None if step in event.unseen_losses else event.losses[place]
        not_measured = missing(loss=loss, parameters=True if step in with_parameters else None)
        batch.table("steps").append((event.model, step, event.seconds[place], loss, not_measured, 1))


def _snapshot(batch: Batch, event: Snapshot) -> None:
    if len(event.quantiles) != len(SNAPSHOT_COLUMNS):
        raise TypeError(f"a snapshot has {len(event.quantiles)} quantiles, not {len(SNAPSHOT_COLUMNS)}")
    batch.table("snapshots").append((event.model, event.step, event.parameter, event.norm, *event.quantiles))


def _trace(batch: Batch, event: TraceEvent) -> None:
    trace: Trace = event.trace
    number = batch.next_trace
    batch.next_trace += 1
    not_measured = missing(chance=trace.chance)
    batch.table("traces").append(
        (
            *(number, trace.model, trace.step, trace.backward, text(trace.graph)),
            *(trace.loss, trace.output, trace.chance, not_measured),
        )
    )
    batch.traces.append((number, trace))


def trace_rows(batch: Batch, number: int, trace: Trace) -> None:
    """Add the operations and edges of a trace to the tables."""
    for position, stats in enumerate(trace.stats):
        _operation_stats(batch, number, position, stats)


def _operation_stats(batch: Batch, trace: int, position: int, s: OperationStats) -> None:
    not_measured = missing(output_std=s.output_std, output_rms=s.output_rms, total=s.total)
    batch.table("trace_operations").append(
        (
            *(trace, position, s.operation, s.count, s.norm, s.absmax, s.zeros, s.nonfinite),
            *(s.output_count, s.output_std, s.output_rms, s.units, s.closed_units, not_measured),
            *(s.total, s.sampled, str(list(s.exponents)) if s.exponents else None),
        )
    )
    edges = batch.table("trace_edges")
    for towards, norms in (("parent", s.edge_norms), ("parameter", s.parameter_norms)):
        for slot, n in enumerate(norms):
            edges.append((trace, position, towards, slot, n, "norm" if n is None else ""))


def _incident(batch: Batch, event: Incident) -> None:
    batch.table("incidents").append((event.step, text(event.where), text(event.what)))


def _skipped(batch: Batch, event: Skipped) -> None:
    batch.table("skipped").append((event.model, text(event.what), text(event.why)))


def _model_rows(batch: Batch, info: ModelInfo) -> None:
    batch.table("models").append((info.index, text(info.name), text(info.class_name), info.training_modules))
    batch.table("parameters").extend(
        (
            *(info.index, p.index, text(p.name), json.dumps(p.shape), text(p.dtype)),
            *(p.requires_grad, p.optimizer, p.sampled, _shard_text(p.shard)),
        )
        for p in info.parameters
    )
    batch.table("optimizers").extend(
        (info.index, o.index, text(o.class_name), json.dumps(o.learning_rates), json.dumps(o.options))
        for o in info.optimizers
    )


def _shard_text(shard: Shard | None) -> str | None:
    return None if shard is None else json.dumps(asdict(shard))


def _layer_rows(batch: Batch, event: ArchitectureEvent) -> None:
    for position, s in enumerate(event.layers):
        batch.table("layers").append(
            (
                *(event.model, position, text(s.name), s.fan_in, s.fan_out, s.weight_variance),
                *(s.bias_variance, s.bias_centres, s.input_second_moment, s.batch, s.norm),
                *(text(s.activation), json.dumps(s.activation_parameters), s.skip, s.predictable),
                missing(
                    input_second_moment=s.input_second_moment,
                    input_variety=s.input_variety,
                    input_disparity=s.input_disparity,
                    unit_variety=s.unit_variety,
                ),
                *(s.input_variety, s.input_disparity, s.unit_variety),
            )
        )


def _graph_rows(batch: Batch, model: int, key: str, graph: Graph) -> None:
    batch.table("graphs").append((model, text(key)))
    for o in graph.operations:
        batch.table("operations").append(
            (
                *(model, text(key), o.index, text(o.name), o.kind, text(o.module), text(o.module_class)),
                *(o.call, json.dumps(o.parents), json.dumps(o.parameters)),
            )
        )


_ENCODERS: dict[type, Callable[[Batch, Any], None]] = {
    ModelEvent: _model,
    PlaceEvent: _place,
    StepEvent: _step,
    BlockEvent: _block,
    GraphEvent: _graph,
    TraceEvent: _trace,
    Snapshot: _snapshot,
    ArchitectureEvent: _architecture,
    Incident: _incident,
    Skipped: _skipped,
}
