"""What is kept of a run that never ends: recent rows whole, older ones on rungs that each thin them once more.

A ladder holds all rows of one kind for one model, in blocks of many rows. Rung 0 has whole steps. When a rung holds
more bytes than it may, its oldest rows are thinned and go up one rung, so that the time behind a kept row doubles
from rung to rung. Rows near the start of the run stay where they are: a row of rung k + 1 begins no earlier than
at row `head` * 2^(k + 1) of all, so that the first steps stay whole and an early onset keeps its place in time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from unvanish.store.layout import TABLES
from unvanish.store.stat_rows import StatRows
from unvanish.store.step_rows import StepRows

BLOCK_BYTES = 256 * 1024  # a window is read block by block, and the last block is rewritten as it grows
_WORK_BYTES = 1024 * 1024  # what one write may thin beyond what it brought, per rung
_LEAST_ROWS = 4  # of a rung, however large its rows are

R = TypeVar("R", StepRows, StatRows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes that a record may take. All models of a run share the recent bytes and those of each rung.

    By these numbers 2,000 parameters x 1,000,000 steps, all of it measured, take about half a GB:
    benchmarks/record_scale.py does the sum.
    """

    recent_bytes: int = 64 * 1024**2  # rung 0, for the statistics and for the steps each
    level_bytes: int = 8 * 1024**2  # each rung above
    stat_head: int = 32
    step_head: int = 4096
    trace_bytes: int = 32 * 1024**2  # all traces together
    snapshot_bytes: int = 16 * 1024**2  # all snapshots together


@dataclass(frozen=True, slots=True)
class Entry:
    """One block, as the writer remembers it."""

    block: int
    rows: int
    size: int  # bytes
    kind: tuple[object, ...]
    first: int  # its first row's place among all rows that ever came
    span: int  # of how many of them it is made


class Ladder(Generic[R]):
    """The blocks of one model, in one table. Changes the record through `connection`, inside a transaction."""

    def __init__(self, rows: type[R], model: int, head: int) -> None:
        """`rows`: the kind of rows; `head`: see above."""
        self._rows: type[R] = rows
        self._model = model
        self._head = head
        self.levels: list[list[Entry]] = [[]]
        self.count = 0  # rows that ever came

    def copy(self) -> Ladder[R]:
        """To be changed along with the record, and forgotten when that fails."""
        made = Ladder(self._rows, self._model, self._head)
        made.levels = [list(level) for level in self.levels]
        made.count = self.count
        return made

    def add(self, shelf: Shelf, rows: R, recent: int, older: int) -> None:
        """Append rows, then thin as many as have to go. `recent` and `older`: bytes of rung 0 and of the others."""
        for piece in _pieces(rows, min(BLOCK_BYTES, recent // 8)):
            self._place(shelf, 0, piece, (self.count, len(piece)), recent)
            self.count += len(piece)
        budget = 2 * rows.size + _WORK_BYTES
        level = 0
        while level < len(self.levels):
            self._settle(shelf, level, older if level else recent, older, budget)
            level += 1

    def _settle(self, shelf: Shelf, level: int, limit: int, older: int, budget: int) -> None:
        """Send the oldest rows of a rung up while it holds too much. The work has a bound, the rest waits."""
        entries = self.levels[level]
        if not entries:
            return
        limit = max(limit, _LEAST_ROWS * entries[-1].size // entries[-1].rows)
        pinned = self._pinned(level)
        held = sum(entry.size for entry in entries[pinned:])
        while held > limit and budget > 0:
            moved = self._promote(shelf, level, pinned, older)
            if moved <= 0:
                return
            held -= moved
            budget -= moved

    def _pinned(self, level: int) -> int:
        """How many blocks of a rung are too near to the start of the run to be thinned."""
        end = self._head << (level + 1)
        return next((i for i, e in enumerate(self.levels[level]) if e.first >= end), len(self.levels[level]))

    def _promote(self, shelf: Shelf, level: int, at: int, older: int) -> int:
        """Thin the block at this place, with those behind it where it is too short; gives the bytes moved."""
        entries = self.levels[level]
        taken = entries[at : at + 1]
        while sum(e.rows for e in taken) < self._rows.GROUP and at + len(taken) < len(entries):
            taken.append(entries[at + len(taken)])
        held = sum(e.rows for e in taken)
        whole = held - held % self._rows.GROUP
        if not whole:
            return 0
        rows = self._fetch(shelf, taken[0])
        for entry in taken[1:]:
            rows = rows.joined(self._fetch(shelf, entry))
        for entry in taken:
            shelf.delete(self._rows.TABLE, entry.block)
        first, span = taken[0].first, sum(e.span for e in taken)
        covered = span * whole // held
        rest = rows.take(whole, held)
        kept = [self._insert(shelf, level, rest, (first + covered, span - covered))] if len(rest) else []
        entries[at : at + len(taken)] = kept
        if level + 1 == len(self.levels):
            self.levels.append([])
        self._place(shelf, level + 1, rows.take(0, whole).thinned(), (first, covered), older)
        return sum(e.size for e in taken) - sum(e.size for e in kept)

    def _place(self, shelf: Shelf, level: int, rows: R, place: tuple[int, int], limit: int) -> None:
        """Append to a rung. Blocks at its end that are no longer than this one become one with it, while they fit."""
        entries = self.levels[level]
        first, span = place
        most = min(BLOCK_BYTES, limit // 8)
        while entries:
            last = entries[-1]
            if last.rows > len(rows) or last.size + rows.size > most or last.kind != rows.kind:
                break
            entries.pop()
            rows = self._fetch(shelf, last).joined(rows)
            shelf.delete(self._rows.TABLE, last.block)
            first, span = last.first, last.span + span
        entries.append(self._insert(shelf, level, rows, (first, span)))

    def _insert(self, shelf: Shelf, level: int, rows: R, place: tuple[int, int]) -> Entry:
        block = shelf.number()
        shelf.insert(self._rows.TABLE, rows.row(block, self._model, level))
        return Entry(block, len(rows), rows.size, rows.kind, *place)

    def _fetch(self, shelf: Shelf, entry: Entry) -> R:
        names = self._rows.needs()
        values = shelf.fetch(self._rows.TABLE, entry.block, names)
        rows: R = self._rows.read(dict(zip(names, values, strict=True)))
        return rows


class Shelf:
    """The tables of blocks, by number. Numbers are counted here, so that nothing has to be asked back."""

    def __init__(self, connection: sqlite3.Connection, numbers: Callable[[], int]) -> None:
        """`numbers` gives the next number of a block."""
        self._connection = connection
        self.number = numbers

    def insert(self, table: str, row: tuple[object, ...]) -> None:
        """One row, in the order of layout.TABLES."""
        marks = ", ".join("?" * len(TABLES[table]))
        self._connection.execute(f"INSERT INTO {table} VALUES ({marks})", row)  # noqa: S608 - ours

    def fetch(self, table: str, block: int, names: tuple[str, ...]) -> tuple[object, ...]:
        """Some columns of one row."""
        statement = f"SELECT {', '.join(names)} FROM {table} WHERE block = ?"  # noqa: S608 - ours
        row: tuple[object, ...] = self._connection.execute(statement, (block,)).fetchone()
        return row

    def delete(self, table: str, block: int) -> None:
        """One row."""
        self._connection.execute(f"DELETE FROM {table} WHERE block = ?", (block,))  # noqa: S608 - ours


def _pieces(rows: R, size: int) -> Iterator[R]:
    """Rows in pieces of about so many bytes, of one row at least."""
    most = max(1, size * len(rows) // max(rows.size, 1))
    for first in range(0, len(rows), most):
        yield rows.take(first, first + most)
