"""Everything of one model out of the record: the big tables as arrays, graphs and traces as nouns."""

from __future__ import annotations

import json
import math
import sqlite3
from array import array
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.architecture import LayerSpec
from unvanish.schema.graph import Graph, Operation, OperationStats, Trace
from unvanish.schema.run import PARAMETER_STATISTICS, ModelInfo, ModelRun, Snapshot
from unvanish.store.encode import Row, untext
from unvanish.store.layout import columns, select_statement

_ROWS_AT_ONCE = 4_000
_WHOLE = (-(2**62), 2**62)


def read_model(connection: sqlite3.Connection, info: ModelInfo, steps: tuple[int, int] | None) -> ModelRun:
    """One model's part of the record; `steps` = (first, last) for a window, None for all."""
    first, last = steps or _WHOLE
    where = f"model = {info.index} AND step BETWEEN {int(first)} AND {int(last)}"
    rows = connection.execute(select_statement("steps", where, "model, step")).fetchall()
    measured = [step for _, step, _, _, not_measured in rows if "parameters" not in not_measured.split()]
    return ModelRun(
        info=info,
        steps=array("q", (row[1] for row in rows)),
        seconds=array("d", (_number(row[2]) for row in rows)),
        losses=array("d", (_number(row[3]) for row in rows)),
        parameter_steps=array("q", measured),
        parameter_stats=_parameter_stats(connection, where, measured, len(info.parameters)),
        snapshots=tuple(_snapshots(connection, where)),
        graphs=_graphs(connection, info.index),
        traces=tuple(_traces(connection, where)),
        architecture=tuple(_layers(connection, info.index)),
        unseen_losses=frozenset(row[1] for row in rows if "loss" in row[4].split()),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _known(name: str, value: float | None, not_measured: str) -> float | None:
    """None where it was not measured, NaN where it was NaN (SQLite keeps both as NULL)."""
    return None if name in not_measured.split() else _number(value)


def _parameter_stats(
    connection: sqlite3.Connection, where: str, measured: list[int], parameters: int
) -> dict[str, array[float]]:
    """Row-major [steps x parameters] per statistic; NaN where a step has no row for a parameter."""
    steps = np.array(measured, dtype=np.int64)
    table: NDArray[np.float64] = np.full(
        (len(PARAMETER_STATISTICS), len(measured), parameters), np.nan, dtype=np.float64
    )
    cursor = connection.execute(select_statement("parameter_stats", where, "model, step, parameter"))
    width = len(columns("parameter_stats"))
    while table.size and (rows := cursor.fetchmany(_ROWS_AT_ONCE)):
        flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width)  # None becomes NaN
        values = flat.reshape(-1, width)
        places = values[:, 1:3].astype(np.int64)
        at = np.searchsorted(steps, places[:, 0])
        keep = (places[:, 1] < parameters) & (steps[np.minimum(at, len(steps) - 1)] == places[:, 0])
        table[:, at[keep], places[keep, 1]] = values[keep, 3:].T
    stats = {}
    for name, matrix in zip(PARAMETER_STATISTICS, table, strict=True):
        stats[name] = array("d")
        stats[name].frombytes(matrix.tobytes())
    return stats


def _snapshots(connection: sqlite3.Connection, where: str) -> Iterator[Snapshot]:
    for model, step, parameter, norm, *quantiles in connection.execute(
        select_statement("snapshots", where, "rowid")
    ):
        yield Snapshot(
            model=model,
            step=step,
            parameter=parameter,
            norm=_number(norm),
            quantiles=tuple(_number(q) for q in quantiles),
        )


def _graphs(connection: sqlite3.Connection, model: int) -> dict[str, Graph]:
    where = f"model = {model}"
    operations: dict[str, list[Operation]] = {
        untext(row[1]): [] for row in connection.execute(select_statement("graphs", where))
    }
    for row in connection.execute(select_statement("operations", where, "rowid")):
        _, key, index, name, kind, module, module_class, call, parents, parameters = row
        operations[untext(key)].append(
            Operation(
                index=index,
                name=untext(name),
                kind=kind,
                module=untext(module),
                module_class=untext(module_class),
                call=call,
                parents=tuple(json.loads(parents)),
                parameters=tuple(json.loads(parameters)),
            )
        )
    return {key: Graph(key=key, operations=tuple(made)) for key, made in operations.items()}


def _traces(connection: sqlite3.Connection, where: str) -> Iterator[Trace]:
    for row in connection.execute(select_statement("traces", where, "step, backward, trace")).fetchall():
        number, model, step, backward, graph, loss, output, chance, not_measured = row
        yield Trace(
            model=model,
            step=step,
            backward=backward,
            graph=untext(graph),
            loss=_number(loss),
            stats=tuple(_operation_stats(connection, number)),
            output=output,
            chance=_known("chance", chance, not_measured),
        )


def _operation_stats(connection: sqlite3.Connection, trace: int) -> Iterator[OperationStats]:
    edges: dict[tuple[int, str], list[float | None]] = {}
    where = f"trace = {trace}"
    for row in connection.execute(select_statement("trace_edges", where, "trace, position, towards, slot")):
        _, position, towards, _, norm, not_measured = row
        edges.setdefault((position, towards), []).append(_known("norm", norm, not_measured))
    for row in connection.execute(select_statement("trace_operations", where, "trace, position")):
        yield _one_operation(row, edges)


def _one_operation(row: Row, edges: dict[tuple[int, str], list[float | None]]) -> OperationStats:
    position, operation, count, norm, absmax, zeros, nonfinite, output_count = row[1:9]
    output_std, output_rms, units, closed_units, output_mean, unit_bits, not_measured = row[9:]
    return OperationStats(
        operation=operation,
        count=count,
        norm=_number(norm),
        absmax=_number(absmax),
        zeros=zeros,
        nonfinite=nonfinite,
        edge_norms=tuple(edges.get((position, "parent"), ())),
        parameter_norms=tuple(edges.get((position, "parameter"), ())),
        output_count=output_count,
        output_std=_known("output_std", output_std, not_measured),
        output_rms=_known("output_rms", output_rms, not_measured),
        units=units,
        closed_units=closed_units,
        output_mean=_known("output_mean", output_mean, not_measured),
        unit_bits=unit_bits,
    )


def _layers(connection: sqlite3.Connection, model: int) -> Iterator[LayerSpec]:
    for row in connection.execute(select_statement("layers", f"model = {model}", "position")):
        name, fan_in, fan_out, weight_variance, bias_variance, bias_centres, second_moment = row[2:9]
        batch, norm, activation, activation_parameters, skip, predictable, not_measured = row[9:]
        parameters: dict[str, Any] = json.loads(activation_parameters)
        yield LayerSpec(
            name=untext(name),
            fan_in=fan_in,
            fan_out=fan_out,
            weight_variance=_number(weight_variance),
            bias_variance=_number(bias_variance),
            bias_centres=bool(bias_centres),
            input_second_moment=_known("input_second_moment", second_moment, not_measured),
            batch=batch,
            norm=norm,
            activation=untext(activation),
            activation_parameters=parameters,
            skip=skip,
            predictable=bool(predictable),
        )
