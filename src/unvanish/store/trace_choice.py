"""Which traces and snapshots stay when there are more than the record may hold.

The first and the last, half of the rest spread over the logarithm of the step and half over the step itself, and
those at a change.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_ENDS = 2  # so many of the first and of the last are never given up
_MOST_CHANGES = 16  # the largest changes, whose trace before and after are held dearer
_CHANGE_WORTH = 16.0  # a gap at a change counts like one that is so many times as wide
_TABLE_WORTH = 4.0  # the same for those that also stand in the tables for ordinary tools
_ROOM = 8  # one part in so many is made free at a time, so that the choice is made seldom


# one trace, or one step's snapshots, as the writer remembers it: plain numbers, for a long run has many
_ROW = np.dtype(
    [
        ("number", np.int64),
        ("step", np.int64),
        ("size", np.int64),  # bytes
        ("change", np.float64),  # against the trace before it, see `change`
        ("in_tables", np.bool_),
    ]
)
Rows = NDArray[np.void]


class Kept:
    """The traces, or the snapshots, of one model that are in the record, in their order."""

    def __init__(self, rows: Rows | None = None) -> None:
        """`rows`: those to begin with; they become this object's own."""
        self._rows = np.zeros(0, _ROW) if rows is None else rows
        self._count = len(self._rows)
        self.size = int(self._rows["size"].sum())

    @property
    def rows(self) -> Rows:
        """One row for each: number, step, size in bytes, change, in_tables."""
        return self._rows[: self._count]

    def __len__(self) -> int:
        return self._count

    def copy(self) -> Kept:
        """To be added to in this one's place: of the two only one may go on, for they share what lies beyond."""
        made = Kept.__new__(Kept)
        made._rows, made._count, made.size = self._rows, self._count, self.size
        return made

    def add(self, *, number: int, step: int, size: int, change: float = 0.0, in_tables: bool = False) -> None:
        """One more, behind the others."""
        if self._count == len(self._rows):
            rows = np.zeros(max(16, 2 * self._count), _ROW)
            rows[: self._count] = self._rows
            self._rows = rows
        self._rows[self._count] = (number, step, size, change, in_tables)
        self._count += 1
        self.size += size


def change(before: NDArray[np.float64] | None, after: NDArray[np.float64]) -> float:
    """How far the norms of a trace are from those of the one before: mean |log2 ratio|; inf = not comparable.

    Norms that fell to zero, or are no numbers any more, count as a large change (1,074 octaves, all that
    float64 has), not as an infinite one.
    """
    if before is None or before.shape != after.shape:
        return math.inf
    with np.errstate(all="ignore"):
        octaves = np.abs(np.log2(np.abs(after)) - np.log2(np.abs(before)))
    same = (after == before) | (np.isnan(after) & np.isnan(before))
    octaves = np.where(same, 0.0, np.nan_to_num(octaves, nan=1074.0, posinf=1074.0))
    return float(octaves.mean()) if len(octaves) else 0.0


def to_give_up(kept: Kept, limit: int) -> NDArray[np.bool_]:
    """Which of them to delete, so that the rest takes less than `limit` bytes.

    The one that leaves the smallest gap goes first. In one round no two neighbours, and no more than the cheaper
    half of those that are asked about, so that a large excess does not take every second one whatever its worth.
    """
    rows, size = kept.rows, kept.size
    gone = np.zeros(len(rows), np.bool_)
    if size <= limit:
        return gone
    low = limit - limit // _ROOM
    left = np.arange(len(rows))
    while size > low and len(left) > 2 * _ENDS:
        inner = np.arange(_ENDS, len(left) - _ENDS, 2)
        cheapest = np.argsort(_worth(rows[left])[inner], kind="stable")[: (len(inner) + 1) // 2]
        chosen = inner[cheapest]
        sizes = rows["size"][left[chosen]]
        chosen = chosen[size - (np.cumsum(sizes) - sizes) > low]  # until then there were too many
        size -= int(rows["size"][left[chosen]].sum())
        gone[left[chosen]] = True
        left = np.delete(left, chosen)
    return gone


def _worth(rows: Rows) -> NDArray[np.float64]:
    """What each trace is worth: the gap that it fills, more where something changed."""
    steps = rows["step"].astype(np.float64)
    steps -= steps.min()
    places = np.log1p(steps) / math.log1p(max(1.0, steps.max())) + steps / max(1.0, steps.max())
    worth = np.zeros(len(rows))
    worth[1:-1] = places[2:] - places[:-2]
    changes = rows["change"]
    largest = np.argsort(-changes, kind="stable")[: min(_MOST_CHANGES, len(rows) // 8)]
    largest = largest[changes[largest] > 0]
    worth[largest] *= _CHANGE_WORTH
    worth[np.maximum(largest - 1, 0)] *= _CHANGE_WORTH
    worth[rows["in_tables"]] *= _TABLE_WORTH
    return worth
