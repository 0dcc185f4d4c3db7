"""What comes packed (blocks of steps) or is packed here (traces): placed, copied to the tables in part, thinned."""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.graph import Trace
from unvanish.schema.run import BlockEvent
from unvanish.store.encode import Batch, block_rows, trace_rows
from unvanish.store.ladder import Ladder, Limits, Shelf
from unvanish.store.pack_trace import norms_of, pack_through_time, pack_trace
from unvanish.store.spaced import log_spaced
from unvanish.store.stat_rows import StatRows
from unvanish.store.step_rows import StepRows
from unvanish.store.trace_choice import Kept, change, to_give_up

_STEPS_AN_OCTAVE = 64
_MOST_AN_OCTAVE = 8  # of the steps whose parameters, and of the traces whose operations, stand in the tables
_ROWS_AN_OCTAVE = 8_000  # in parameter_stats and in trace_operations, where that allows one at all
_TRACE_TABLES = ("traces", "traces_packed", "through_time", "trace_operations", "trace_edges")
_GRAPHS_COMPARED = 16  # whose last trace is remembered
_SNAPSHOT_BYTES = 120  # of a row in the table and its index


class Packed:
    """What the writer remembers of the packed tables. Lives as long as the record is open.

    A write works on a copy, which is forgotten when the transaction fails.
    """

    def __init__(self, limits: Limits) -> None:
        """`limits`: bytes that the record may take."""
        self._limits = self._whole = limits
        self._steps: dict[int, Ladder[StepRows]] = {}
        self._stats: dict[int, Ladder[StatRows]] = {}
        self._traces: dict[int, Kept] = {}
        self._snapshots: dict[int, Kept] = {}
        self._traced: dict[int, int] = {}  # traces that ever came, per model
        self._norms: dict[tuple[int, str], NDArray[np.float64]] = {}  # of the last trace with a graph
        self._numbers = itertools.count()  # of blocks; those of a failed write are just not used

    def copy(self) -> Packed:
        """To be changed along with the record."""
        made = Packed(self._whole)
        made._limits = self._limits
        made._steps = {model: ladder.copy() for model, ladder in self._steps.items()}
        made._stats = {model: ladder.copy() for model, ladder in self._stats.items()}
        made._traces = {model: traces.copy() for model, traces in self._traces.items()}
        made._snapshots = {model: taken.copy() for model, taken in self._snapshots.items()}
        made._traced = dict(self._traced)
        made._norms = dict(self._norms)
        made._numbers = self._numbers
        return made

    def write(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Place the blocks of a batch, and add to the batch what shall stand in the tables as rows."""
        shelf = Shelf(connection, self._numbers.__next__)
        if batch.ranks > 1:
            self._limits = self._whole.among(batch.ranks)
        for event in batch.blocks:
            self._block(shelf, batch, event)
        for number, trace in batch.traces:
            self._trace(batch, number, trace)
        taken = Counter((row[0], row[1]) for row in batch.rows.get("snapshots", ()))
        for (model, step), rows in taken.items():
            self._snapshots.setdefault(model, Kept()).add(number=0, step=step, size=rows * _SNAPSHOT_BYTES)

    def thin(self, connection: sqlite3.Connection) -> None:
        """Give up traces and snapshots where there are too many. After the batch's rows went in."""
        self._thin_traces(connection)
        limit = self._limits.snapshot_bytes // max(1, len(self._snapshots))
        for model, taken in self._snapshots.items():
            gone = to_give_up(taken, limit)
            if gone.any():
                steps = taken.rows["step"][gone]
                connection.executemany(
                    "DELETE FROM snapshots WHERE model = ? AND step = ?", [(model, s) for s in steps.tolist()]
                )
                self._snapshots[model] = Kept(taken.rows[~np.isin(taken.rows["step"], steps)])

    def _thin_traces(self, connection: sqlite3.Connection) -> None:
        limit = self._limits.trace_bytes // max(1, len(self._traces))
        for model, traces in self._traces.items():
            gone = to_give_up(traces, limit)
            if not gone.any():
                continue
            for number, in_tables in traces.rows[["number", "in_tables"]][gone].tolist():
                for table in _TRACE_TABLES[: None if in_tables else 3]:
                    connection.execute(f"DELETE FROM {table} WHERE trace = ?", (number,))  # noqa: S608 - ours
            self._traces[model] = Kept(traces.rows[~gone])

    def _block(self, shelf: Shelf, batch: Batch, event: BlockEvent) -> None:
        limits = self._limits
        steps, stats = StepRows.of(event), StatRows.of(event)
        step_ladder = self._steps.setdefault(event.model, Ladder(StepRows, event.model, limits.step_head))
        stat_ladder = self._stats.setdefault(event.model, Ladder(StatRows, event.model, limits.stat_head))
        parameters = stats.mean.shape[-1] if len(stats) else 0
        an_octave = max(1, min(_MOST_AN_OCTAVE, _ROWS_AN_OCTAVE // max(1, parameters)))
        measured = [
            at - stat_ladder.count for at in log_spaced(stat_ladder.count, len(event.measured), an_octave)
        ]
        at_steps = [
            at - step_ladder.count for at in log_spaced(step_ladder.count, len(steps), _STEPS_AN_OCTAVE)
        ]
        block_rows(batch, event, at_steps, measured)
        recent, older = (limit // len(self._steps) for limit in (limits.recent_bytes, limits.level_bytes))
        step_ladder.add(shelf, steps, recent, older)
        if len(stats):
            stat_ladder.add(shelf, stats, recent, older)

    def _trace(self, batch: Batch, number: int, trace: Trace) -> None:
        row = pack_trace(number, trace)
        batch.table("traces_packed").append(row)
        in_time = pack_through_time(number, trace)
        if in_time:
            batch.table("through_time").extend(in_time)
        traced = self._traced.get(trace.model, 0)
        self._traced[trace.model] = traced + 1
        an_octave = max(1, min(_MOST_AN_OCTAVE, _ROWS_AN_OCTAVE // max(1, len(trace.stats))))
        in_tables = any(True for _ in log_spaced(traced, 1, an_octave))
        if in_tables:
            trace_rows(batch, number, trace)
        norms = norms_of(trace)
        before = self._norms.pop((trace.model, trace.graph), None)
        self._norms[trace.model, trace.graph] = norms
        while len(self._norms) > _GRAPHS_COMPARED:
            del self._norms[next(iter(self._norms))]
        self._traces.setdefault(trace.model, Kept()).add(
            number=number,
            step=trace.step,
            size=sum(len(memoryview(part).cast("B")) for part in (*row[2:], *(r[-1] for r in in_time))),
            change=change(before, norms),
            in_tables=in_tables,
        )
