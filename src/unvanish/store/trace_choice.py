"""Which traces and snapshots stay when there are more than the record may hold.

The first and the last, half of the rest spread over the logarithm of the step and half over the step itself, and
those at a change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ENDS = 2  # so many of the first and of the last are never given up
_MOST_CHANGES = 16  # the largest changes, whose trace before and after are held dearer
_CHANGE_WORTH = 16.0  # a gap at a change counts like one that is so many times as wide
_TABLE_WORTH = 4.0  # the same for those that also stand in the tables for ordinary tools
_ROOM = 8  # one part in so many is made free at a time, so that the choice is made seldom


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One trace, or one step's snapshots, in the record, as the writer remembers it."""

    number: int
    model: int
    step: int
    size: int  # bytes
    change: float = 0.0  # against the trace before it, see `change`
    in_tables: bool = False


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


def to_give_up(traces: Sequence[Kept], limit: int) -> list[Kept]:
    """Those to delete, so that the rest takes less than `limit` bytes; all of one model, in their order.

    The one that leaves the smallest gap goes first. In one round no two neighbours, and no more than the cheaper
    half of those that are asked about, so that a large excess does not take every second one whatever its worth.
    """
    gone: list[Kept] = []
    left = list(traces)
    size = sum(t.size for t in left)
    if size <= limit:
        return []
    while size > limit - limit // _ROOM and len(left) > 2 * _ENDS:
        worth = _worth(left)
        inner = np.arange(_ENDS, len(left) - _ENDS, 2)
        chosen: set[int] = set()
        cheapest = np.argsort(worth[inner], kind="stable")[: (len(inner) + 1) // 2]
        for at in inner[cheapest].tolist():
            if size <= limit - limit // _ROOM:
                break
            chosen.add(at)
            size -= left[at].size
        gone += [left[at] for at in sorted(chosen)]
        left = [t for at, t in enumerate(left) if at not in chosen]
    return gone


def _worth(traces: Sequence[Kept]) -> NDArray[np.float64]:
    """What each trace is worth: the gap that it fills, more where something changed."""
    steps = np.array([t.step for t in traces], np.float64)
    steps -= steps.min()
    places = np.log1p(steps) / math.log1p(max(1.0, steps.max())) + steps / max(1.0, steps.max())
    worth = np.zeros(len(traces))
    worth[1:-1] = places[2:] - places[:-2]
    changes = np.array([t.change for t in traces])
    largest = np.argsort(-changes, kind="stable")[: min(_MOST_CHANGES, len(traces) // 8)]
    largest = largest[changes[largest] > 0]
    worth[largest] *= _CHANGE_WORTH
    worth[np.maximum(largest - 1, 0)] *= _CHANGE_WORTH
    worth[[t.in_tables for t in traces]] *= _TABLE_WORTH
    return worth
