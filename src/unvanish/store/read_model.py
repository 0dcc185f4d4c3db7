"""Everything of one model out of the record: the big tables as arrays, graphs and traces as nouns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

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


class _Snapshots(Sequence[Snapshot]):
    """As numbers, which become nouns when one is asked for: of large models there are a hundred thousand."""

    def __init__(self, places: NDArray[np.int64], numbers: NDArray[np.float64]) -> None:
        """`places`: model, step and parameter of each; `numbers`: its norm and its quantiles."""
        self._places, self._numbers = places, numbers

    @cached_property
    def _all(self) -> tuple[Snapshot, ...]:
        model, step, parameter = self._places.T.tolist()
        norm, *levels = self._numbers.T.tolist()
        made = {"model": model, "step": step, "parameter": parameter, "norm": norm}
        return from_columns(Snapshot, len(self), {**made, "quantiles": zip(*levels, strict=True)})

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Snapshot: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[Snapshot, ...]: ...

    def __getitem__(self, at: int | slice) -> Snapshot | tuple[Snapshot, ...]:
        return self._all[at]

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self._all)

    def __eq__(self, other: object) -> bool:
        return self._all == (other._all if isinstance(other, _Snapshots) else other)

    def __hash__(self) -> int:
        return hash(self._all)

    def __repr__(self) -> str:
        return repr(self._all)


def _snapshots(connection: sqlite3.Connection, where: str) -> Sequence[Snapshot]:
    names = columns("snapshots")
    places, numbers = (
        chain.from_iterable(connection.execute(select_statement("snapshots", where, "rowid", part)))
        for part in (names[:3], names[3:])
    )
    found = np.fromiter(places, np.int64).reshape(-1, 3)
    if not len(found):
        return ()
    values = np.fromiter(numbers, np.float64)  # None, a NaN in SQLite, becomes NaN
    return _Snapshots(found, values.reshape(len(found), -1))


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
