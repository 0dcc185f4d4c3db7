"""Everything of one model out of the record: the big tables as arrays, graphs and traces as nouns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from unvanish.schema.architecture import LayerSpec
from unvanish.schema.columns import from_columns
from unvanish.schema.graph import Graph, Operation
from unvanish.schema.run import ModelInfo, ModelRun, Snapshot
from unvanish.store.encode import untext
from unvanish.store.layout import columns, present, select_statement
from unvanish.store.read_steps import read_statistics, read_steps
from unvanish.store.read_traces import known, number, read_traces

_WHOLE = (-(2**62), 2**62)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to read of a run: all of it, unless said otherwise. As read_run has it."""

    steps: tuple[int, int] | None = None
    rows: int | None = None
    detail: bool = True


def read_model(connection: sqlite3.Connection, info: ModelInfo, wanted: Wanted) -> ModelRun:
    """One model's part of the record."""
    window = (int(wanted.steps[0]), int(wanted.steps[1])) if wanted.steps else _WHOLE
    where = f"model = {info.index} AND step BETWEEN {window[0]} AND {window[1]}"
    table = read_steps(connection, info.index, window)
    statistics = read_statistics(
        connection, (info.index, window), len(info.parameters), table.singly_measured, wanted.rows
    )
    detail = wanted.detail
    return ModelRun(
        info=info,
        steps=table.steps,
        seconds=table.seconds,
        losses=table.losses,
        parameter_steps=statistics.steps,
        parameter_stats=statistics.means,
        snapshots=_snapshots(connection, where) if detail else (),
        graphs=_graphs(connection, info.index) if detail else {},
        traces=tuple(read_traces(connection, where)) if detail else (),
        architecture=tuple(_layers(connection, info.index)),
        unseen_losses=table.unseen,
        clips=table.clips,
        learning_rates=table.learning_rates,
        parameter_until=statistics.until,
        parameter_extremes=statistics.extremes,
    )


def _snapshots(connection: sqlite3.Connection, where: str) -> tuple[Snapshot, ...]:
    rows = connection.execute(select_statement("snapshots", where, "rowid")).fetchall()
    if not rows:
        return ()
    model, step, parameter, *numbers = zip(*rows, strict=True)
    norm, *levels = (map(number, column) if None in column else column for column in numbers)
    columns = {
        "model": model,
        "step": step,
        "parameter": parameter,
        "norm": norm,
        "quantiles": zip(*levels, strict=True),
    }
    return from_columns(Snapshot, len(rows), columns)


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
                parents=_listed(parents),
                parameters=_listed(parameters),
            )
        )
    return {key: Graph(key=key, operations=tuple(made)) for key, made in operations.items()}


@lru_cache(maxsize=1024)  # most of a graph's lists are alike: empty, or the operation before
def _listed(text: str) -> tuple[Any, ...]:
    return tuple(json.loads(text))


def _layers(connection: sqlite3.Connection, model: int) -> Iterator[LayerSpec]:
    there = present(connection, "layers")
    names = tuple(column for column in columns("layers") if column in there)
    for row in connection.execute(select_statement("layers", f"model = {model}", "position", names)):
        name, fan_in, fan_out, weight_variance, bias_variance, bias_centres, second_moment = row[2:9]
        batch, norm, activation, activation_parameters, skip, predictable, not_measured = row[9:16]
        varieties = dict(zip(names[16:], row[16:], strict=True))
        parameters: dict[str, Any] = json.loads(activation_parameters)
        yield LayerSpec(
            name=untext(name),
            fan_in=fan_in,
            fan_out=fan_out,
            weight_variance=number(weight_variance),
            bias_variance=number(bias_variance),
            bias_centres=bool(bias_centres),
            input_second_moment=known("input_second_moment", second_moment, not_measured),
            batch=batch,
            norm=norm,
            activation=untext(activation),
            activation_parameters=parameters,
            skip=skip,
            predictable=bool(predictable),
            **{n: known(n, v, not_measured) for n, v in varieties.items()},
        )
