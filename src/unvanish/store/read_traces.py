"""The traces of one model out of the record."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator

from unvanish.schema.graph import OperationStats, ThroughTime, Trace
from unvanish.store.encode import Row, untext
from unvanish.store.layout import columns, present, select_statement
from unvanish.store.pack_trace import unpack_through_time, unpack_trace

# what a record of format 1 has, where traces were kept as rows only
_OPERATION_COLUMNS_1 = tuple(
    name for name in columns("trace_operations") if name not in ("total", "sampled", "exponents")
)


def number(value: float | None) -> float:
    """SQLite keeps a NaN as NULL."""
    return math.nan if value is None else value


def known(name: str, value: float | None, not_measured: str) -> float | None:
    """None where it was not measured, NaN where it was NaN (SQLite keeps both as NULL)."""
    return None if name in not_measured.split() else number(value)


def read_traces(connection: sqlite3.Connection, where: str) -> Iterator[Trace]:
    """The traces that the SQL `where` is true of, by step, then by backward."""
    packed = bool(present(connection, "traces_packed"))
    in_time = bool(present(connection, "through_time"))  # not in the first records of format 2
    for row in connection.execute(select_statement("traces", where, "step, backward, trace")).fetchall():
        trace, model, step, backward, graph, loss, output, chance, not_measured = row
        stats = _packed_stats(connection, trace) if packed else tuple(_row_stats(connection, trace))
        yield Trace(
            model=model,
            step=step,
            backward=backward,
            graph=untext(graph),
            loss=number(loss),
            stats=stats,
            output=output,
            chance=known("chance", chance, not_measured),
            through_time=_through_time(connection, trace) if in_time else (),
        )


def _through_time(connection: sqlite3.Connection, trace: int) -> tuple[ThroughTime, ...]:
    return unpack_through_time(
        connection.execute(select_statement("through_time", f"trace = {trace}", "position")).fetchall()
    )


def _packed_stats(connection: sqlite3.Connection, trace: int) -> tuple[OperationStats, ...]:
    row = connection.execute(select_statement("traces_packed", f"trace = {trace}")).fetchone()
    return unpack_trace(row)


def _row_stats(connection: sqlite3.Connection, trace: int) -> Iterator[OperationStats]:
    edges: dict[tuple[int, str], list[float | None]] = {}
    where = f"trace = {trace}"
    for row in connection.execute(select_statement("trace_edges", where, "trace, position, towards, slot")):
        _, position, towards, _, norm, not_measured = row
        edges.setdefault((position, towards), []).append(known("norm", norm, not_measured))
    for row in connection.execute(
        select_statement("trace_operations", where, "trace, position", _OPERATION_COLUMNS_1)
    ):
        yield _one_operation(row, edges)


def _one_operation(row: Row, edges: dict[tuple[int, str], list[float | None]]) -> OperationStats:
    position, operation, count, norm, absmax, zeros, nonfinite, output_count = row[1:9]
    output_std, output_rms, units, closed_units, not_measured = row[9:]
    return OperationStats(
        operation=operation,
        count=count,
        norm=number(norm),
        absmax=number(absmax),
        zeros=zeros,
        nonfinite=nonfinite,
        edge_norms=tuple(edges.get((position, "parent"), ())),
        parameter_norms=tuple(edges.get((position, "parameter"), ())),
        output_count=output_count,
        output_std=known("output_std", output_std, not_measured),
        output_rms=known("output_rms", output_rms, not_measured),
        units=units,
        closed_units=closed_units,
    )
