"""The steps of one model out of the record, packed ones and single ones together, as arrays.

Memory: what is given back, and one block of it at a time. Every array is made once, in its full length; those of the
statistics when they are asked for, save where some steps came singly or rows are merged.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.run import PARAMETER_STATISTICS
from unvanish.store.layout import present, select_statement
from unvanish.store.planes import MergedPlanes, PackedPlanes, Planes, groups_of
from unvanish.store.series import Statistics, as_array
from unvanish.store.stat_rows import StatRows
from unvanish.store.step_rows import StepRows

_ROWS_AT_ONCE = 4_000
Window = tuple[int, int]  # first and last step, both of it


@dataclass(frozen=True, slots=True)
class Steps:
    """What ModelRun has a number of per step."""

    steps: array[int]
    seconds: array[float]
    losses: array[float]
    clips: array[float]
    learning_rates: array[float]
    unseen: frozenset[int]
    singly_measured: NDArray[np.int64]  # steps that came singly, whose parameters stand in parameter_stats


def read_steps(connection: sqlite3.Connection, model: int, window: Window) -> Steps:
    """All steps of a window in rising order. Where a step came singly and in a block, the block counts."""
    single, measured = _single_steps(connection, model, window)
    blocks = [StepRows.read(row).columns for row in _blocks(connection, StepRows, model, window)]
    parts = [single, *blocks]
    table = {name: np.concatenate([part[name] for part in parts]) for name in single}
    steps = table["steps"]
    order = _rising(steps)
    order = order[(steps[order] >= window[0]) & (steps[order] <= window[1])]
    table = {name: column[order] for name, column in table.items()}
    packed = _any_packed(connection, model)
    return Steps(
        steps=as_array("q", table["steps"]),
        seconds=as_array("d", table["seconds"]),
        losses=as_array("d", table["losses"]),
        clips=as_array("d", table["clips"]) if packed else array("d"),
        learning_rates=as_array("d", table["learning_rates"]) if packed else array("d"),
        unseen=frozenset(table["steps"][table["unseen"] == 1].tolist()),
        singly_measured=measured,
    )


def read_statistics(
    connection: sqlite3.Connection,
    wanted: tuple[int, Window],
    parameters: int,
    single: NDArray[np.int64],
    most: int | None,
) -> Statistics:
    """The parameters' statistics of a window: each row of which a step is inside. `single` as Steps has them.

    `wanted`: the model and the window. [rows x parameters] per statistic, NaN where a row has none. Blocks as for the
    steps. More than `most` rows are merged to so many, unless some came singly.
    """
    model, window = wanted
    firsts, untils, blocks = [single], [single], []
    names = ("block", "rows", "level", "steps", "until")
    for block, rows, level, steps, until in _select(connection, StatRows.TABLE, model, window, names):
        blocks.append((block, rows, level))
        firsts.append(np.frombuffer(steps, "<i8"))
        untils.append(np.frombuffer(steps if until is None else until, "<i8"))
    first, until = np.concatenate(firsts), np.concatenate(untils)
    order = _rising(first)
    order = order[(until[order] >= window[0]) & (first[order] <= window[1])]
    order = order[~_covered(order, first, until, len(single))]
    places = np.full(len(first), -1)
    places[order] = np.arange(len(order))
    firsts_there, untils_there = first[order], until[order]
    if most is not None and len(order) > most and not len(single):
        groups = groups_of(len(order), most)
        places[order] = groups
        heads = np.flatnonzero(np.diff(groups, prepend=-1))
        firsts_there, untils_there = firsts_there[heads], np.maximum.reduceat(untils_there, heads)
        thinned, merged = True, True
    else:
        thinned, merged = bool((firsts_there != untils_there).any()), False
    there = _placed(connection, blocks, places[len(single) :], counted=merged)
    means: Mapping[str, array[float]]
    extremes: Mapping[str, tuple[array[float], array[float]]] = {}
    if not merged and not len(single):
        packed = PackedPlanes(len(order), parameters, list(there))
        means = packed.means()
        extremes = packed.extremes() if thinned else extremes
    else:
        planes: Planes | MergedPlanes
        if merged and most is not None:
            planes = MergedPlanes(most, parameters)
        else:
            planes = Planes(len(order), parameters, ("mean", "smallest", "largest") if thinned else ("mean",))
            _fill_single(connection, planes, wanted, single, places[: len(single)])
        for inside, block_rows in there:
            planes.fill(inside, block_rows)
        if isinstance(planes, MergedPlanes):
            planes.finish()
        means = planes.arrays["mean"]
        if thinned:
            extremes = {n: (planes.arrays["smallest"][n], planes.arrays["largest"][n]) for n in means}
    return Statistics(
        steps=as_array("q", firsts_there),
        until=as_array("q", untils_there) if thinned else array("q"),
        means=means,
        extremes=extremes,
    )


def _placed(
    connection: sqlite3.Connection,
    blocks: Sequence[tuple[int, int, int]],
    places: NDArray[np.int64],
    *,
    counted: bool,
) -> Iterator[tuple[NDArray[np.int64], StatRows]]:
    """The blocks of which some row is wanted, each with the places of its rows. `blocks`: (number, rows, level)."""
    at = 0
    for block, rows, _ in blocks:
        inside = places[at : at + rows]
        at += rows
        if (inside >= 0).any():
            yield inside, _one_block(connection, block, counted=counted)


def _single_steps(
    connection: sqlite3.Connection, model: int, window: Window
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Steps that came one by one, as columns of StepRows, and those of them whose parameters were measured."""
    here = "packed" in present(connection, "steps")
    where = f"model = {model} AND step BETWEEN {window[0]} AND {window[1]}" + (
        " AND packed = 0" if here else ""
    )
    rows = connection.execute(
        select_statement("steps", where, "step", ("step", "seconds", "loss", "not_measured"))
    ).fetchall()
    steps = np.array([row[0] for row in rows], np.int64)
    not_measured = [row[3].split() for row in rows]
    nan = np.full(len(rows), np.nan)
    table: dict[str, NDArray[Any]] = {
        "steps": steps,
        "seconds": np.array([row[1] for row in rows], np.float64),  # None, a NaN in SQLite, becomes NaN
        "losses": np.array([row[2] for row in rows], np.float64),
        "clips": nan,
        "learning_rates": nan,
        "unseen": np.array(["loss" in words for words in not_measured], np.uint8),
    }
    return table, steps[np.array(["parameters" not in words for words in not_measured], bool)]


def _fill_single(
    connection: sqlite3.Connection,
    planes: Planes,
    wanted: tuple[int, Window],
    single: NDArray[np.int64],
    places: NDArray[np.int64],
) -> None:
    """The statistics of steps that came one by one, out of the rows of parameter_stats."""
    if not len(single):
        return
    model, (first, last) = wanted
    names = [name for name in present(connection, "parameter_stats") if name in PARAMETER_STATISTICS]
    cursor = connection.execute(
        select_statement(
            "parameter_stats",
            f"model = {model} AND step BETWEEN {first} AND {last}",
            "model, step, parameter",
            ("step", "parameter", *names),
        )
    )
    width = len(names) + 2
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width)  # None becomes NaN
        values = flat.reshape(-1, width)
        cells = values[:, :2].astype(np.int64)
        at = np.minimum(np.searchsorted(single, cells[:, 0]), len(single) - 1)
        cells[:, 0] = np.where(single[at] == cells[:, 0], places[at], -1)
        planes.fill_cells(cells, values[:, 2:], names)


def _covered(
    order: NDArray[np.int64], first: NDArray[np.int64], until: NDArray[np.int64], singles: int
) -> NDArray[np.bool_]:
    """Which of the rows in order came singly, while a thinned row of a block stands for their step too."""
    came_singly = order < singles
    if not came_singly.any() or came_singly.all():
        return np.zeros(len(order), dtype=bool)
    blocks = order[~came_singly]
    before = np.searchsorted(first[blocks], first[order], side="right") - 1
    reach = until[blocks[np.maximum(before, 0)]]
    return came_singly & (before >= 0) & (reach >= first[order])


def _rising(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order that makes steps rise; of equal ones only the last that came."""
    order = np.argsort(steps, kind="stable")
    there = steps[order]
    last = np.append(there[1:] != there[:-1], True) if len(there) else np.zeros(0, bool)
    kept: NDArray[np.int64] = order[last]
    return kept


def _select(
    connection: sqlite3.Connection, table: str, model: int, window: Window, names: tuple[str, ...]
) -> Iterator[tuple[Any, ...]]:
    """Columns of the blocks of a model that reach into a window, in the order in which they were written."""
    if not present(connection, table):  # a record of an older format
        return
    where = f"model = {model} AND first <= {window[1]} AND last >= {window[0]}"
    yield from connection.execute(select_statement(table, where, "level DESC, block", names))


def _blocks(
    connection: sqlite3.Connection, rows: type[StepRows | StatRows], model: int, window: Window
) -> Iterator[dict[str, Any]]:
    names = rows.needs()
    for row in _select(connection, rows.TABLE, model, window, names):
        yield dict(zip(names, row, strict=True))


def _one_block(connection: sqlite3.Connection, block: int, *, counted: bool) -> StatRows:
    names = StatRows.needs()
    row = connection.execute(select_statement(StatRows.TABLE, f"block = {block}", names=names)).fetchone()
    return StatRows.read(dict(zip(names, row, strict=True)), counted=counted)


def _any_packed(connection: sqlite3.Connection, model: int) -> bool:
    if not present(connection, StepRows.TABLE):
        return False
    found = connection.execute(f"SELECT 1 FROM {StepRows.TABLE} WHERE model = {model} LIMIT 1")  # noqa: S608 - ours
    return found.fetchone() is not None
