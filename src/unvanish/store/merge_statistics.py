"""The parameters' statistics of all ranks as those of the whole tensors, by counts and sums of squares in float64.

A cell is a step, or a stretch of steps that some rank's record has thinned into one row. Of every piece of a
parameter one copy counts: that of the lowest rank that looked at the cell. A cell without all pieces is left out;
where a piece is on no rank that still recorded then, the others stand for it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.run import PARAMETER_STATISTICS
from unvanish.store.merge_teams import Member, Team
from unvanish.store.series import Statistics, as_array

Floats = NDArray[np.float64]
_RMS = frozenset(("gradient_rms", "weight_rms", "update_rms"))
_LARGEST = frozenset(("gradient_absmax",))
_SUMS = frozenset(("first_order",))  # all others are shares: means over the elements


@dataclass(frozen=True)
class _Cells:
    """The rows of all members on one grid: `rows[m]` are the cells of member m's rows, rising."""

    first: NDArray[np.int64]
    until: NDArray[np.int64]
    rows: Sequence[NDArray[np.int64]]

    @property
    def thinned(self) -> bool:
        return bool((self.first != self.until).any())


def merged_statistics(team: Team) -> Statistics:
    """The statistics of the whole model. Shares, sums and rms are exact for rows that stand for one step.

    The mean over several steps of a rms is merged as if it were one step's: too large by less than the steps
    differ; the extremes of such rows are bounds.
    """
    cells = _cells(team.members)
    width = len(team.lead.info.parameters)
    planes = ("mean", "smallest", "largest") if cells.thinned else ("mean",)
    out = {
        plane: {name: np.full((len(cells.first), width), np.nan) for name in PARAMETER_STATISTICS}
        for plane in planes
    }
    whole = np.ones(len(cells.first), dtype=bool)
    estimated = np.zeros(len(cells.first), dtype=bool)
    for parameters, holders in _layouts(team):
        parts = [_Part(team, cells, parameters, h) for h in holders.values()]
        parts_in_all = team.members[0].shard(parameters[0]).parts
        numels = np.array([team.lead.info.parameters[p].numel for p in parameters], dtype=np.float64)
        present = np.stack([p.present for p in parts])
        wanted = np.stack([p.wanted(cells) for p in parts])
        whole &= (present | ~wanted).all(0) & present.any(0)
        estimated |= (present.sum(0) < parts_in_all) & present.any(0)
        for plane in planes:
            for name in PARAMETER_STATISTICS:
                out[plane][name][:, parameters] = _together(name, plane, parts, numels)
    return _statistics(cells, out, whole, estimated & whole)


def _statistics(
    cells: _Cells,
    planes: dict[str, dict[str, Floats]],
    whole: NDArray[np.bool_],
    estimated: NDArray[np.bool_],
) -> Statistics:
    keep = slice(None) if whole.all() else whole
    return Statistics(
        steps=as_array("q", cells.first[keep]),
        until=as_array("q", cells.until[keep]) if cells.thinned else array("q"),
        means={name: as_array("d", values[keep]) for name, values in planes["mean"].items()},
        extremes={
            name: (
                as_array("d", planes["smallest"][name][keep]),
                as_array("d", planes["largest"][name][keep]),
            )
            for name in (PARAMETER_STATISTICS if cells.thinned else ())
        },
        estimated=as_array("q", cells.first[estimated]),
    )


def _layouts(team: Team) -> list[tuple[list[int], dict[int, list[int]]]]:
    """Parameters that lie on the ranks in the same way, with the members that hold each piece, in their order."""
    found: dict[tuple[int, ...], list[int]] = {}
    for parameter in range(len(team.lead.info.parameters)):
        key = tuple(m.shard(parameter).part for m in team.members)
        found.setdefault(key, []).append(parameter)
    layouts = []
    for key, parameters in found.items():
        holders: dict[int, list[int]] = {}
        for number, part in enumerate(key):
            holders.setdefault(part, []).append(number)
        layouts.append((parameters, holders))
    return layouts


class _Part:
    """One piece of some parameters: the rows of the first copy, the gaps filled from the others."""

    def __init__(self, team: Team, cells: _Cells, parameters: list[int], holders: list[int]) -> None:
        self._team, self._cells, self._holders = team, cells, holders
        contiguous = parameters == list(range(parameters[0], parameters[-1] + 1))
        self._columns: Any = slice(parameters[0], parameters[-1] + 1) if contiguous else parameters
        self._whole = contiguous and len(parameters) == len(team.lead.info.parameters)
        member = team.members[holders[0]]
        self.numels = np.array([member.shard(p).numel for p in parameters], dtype=np.float64)
        self.present = np.zeros(len(cells.first), dtype=bool)
        self._from: list[tuple[int, NDArray[np.bool_]]] = []  # (member, which of its rows)
        for number in holders:
            rows = cells.rows[number]
            fresh = ~self.present[rows]
            if fresh.any():
                self._from.append((number, fresh))
                self.present[rows] = True
            if self.present.all():
                break

    def wanted(self, cells: _Cells) -> NDArray[np.bool_]:
        """Cells that some holder's record reaches: one that it did not look at can't be made whole."""
        last = max(self._team.members[n].last for n in self._holders)
        return np.asarray(cells.first <= last)

    def table(self, name: str, plane: str) -> Floats:
        """[cells x parameters], NaN where no copy looked."""
        if len(self._from) == 1 and self._whole:
            number, fresh = self._from[0]
            rows = self._cells.rows[number]
            if fresh.all() and len(rows) == len(self.present) and _rising(rows):
                return _plane(self._team.members[number], name, plane)
        out = np.full((len(self.present), len(self.numels)), np.nan)
        for number, fresh in self._from:
            values = _plane(self._team.members[number], name, plane)[:, self._columns]
            rows = self._cells.rows[number]
            cells, values = rows[fresh], values[fresh]
            if not _rising(cells):
                cells, values = _per_cell(cells, values, plane)
            out[cells] = values
        return out


def _plane(member: Member, name: str, plane: str) -> Floats:
    extremes = member.model.parameter_extremes
    if plane == "mean" or not extremes:
        return member.column(name)
    flat = np.frombuffer(extremes[name][plane == "largest"], np.float64)
    return flat.reshape(len(member.model.parameter_steps), len(member.model.info.parameters))


def _per_cell(cells: NDArray[np.int64], values: Floats, plane: str) -> tuple[NDArray[np.int64], Floats]:
    """Several rows of a member in one cell, as one."""
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    if plane == "mean":
        counts = np.diff(starts, append=len(cells))[:, None]
        return cells[starts], np.add.reduceat(values, starts) / counts
    ufunc = np.fmin if plane == "smallest" else np.fmax
    return cells[starts], ufunc.reduceat(values, starts)


def _together(name: str, plane: str, parts: Sequence[_Part], numels: Floats) -> Floats:
    """All pieces of some parameters as one: [cells x parameters]. `numels` of the whole parameters."""
    if len(parts) == 1 and (parts[0].numels == numels).all():
        return parts[0].table(name, plane)
    shape = (len(parts[0].present), len(parts[0].numels))
    total, elements, nan = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and Inf are numbers to us, not a warning
        for part in parts:
            there = part.present[:, None] & (part.numels > 0)
            values = np.where(there, part.table(name, plane), 0.0)
            weight = np.where(there, part.numels, 0.0)
            elements += weight
            nan |= np.isnan(values)  # hypot says Inf where one of the two is
            if name in _RMS:
                total = np.hypot(total, np.sqrt(weight) * values)
            elif name in _LARGEST:
                total = np.maximum(total, values)
            elif name in _SUMS:
                total += values
            else:
                total += weight * values
        made = _finish(name, total, elements, np.broadcast_to(numels, shape))
        return np.where(nan | (elements == 0), np.nan, made)


def _finish(name: str, total: Floats, elements: Floats, all_elements: Floats) -> Floats:
    found = np.maximum(elements, 1)
    if name in _RMS:
        made = total / np.sqrt(found)
    elif name in _LARGEST:
        made = total
    elif name in _SUMS:
        made = total * (all_elements / found)
    else:
        made = total / found
    return np.asarray(made)


def _cells(members: Sequence[Member]) -> _Cells:
    """Stretches of steps that no member's row crosses the ends of."""
    spans: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for member in members:
        begins = np.frombuffer(member.model.parameter_steps, np.int64)
        until = member.model.parameter_until
        spans.append((begins, np.frombuffer(until, np.int64) if until else begins))
    lead = spans[0]
    if all(np.array_equal(a, lead[0]) and np.array_equal(b, lead[1]) for a, b in spans[1:]):
        places = np.arange(len(lead[0]))
        return _Cells(lead[0], lead[1], [places] * len(members))
    first, last = (np.concatenate([span[i] for span in spans]) for i in (0, 1))
    order = np.argsort(first, kind="stable")
    first, last = first[order], np.maximum.accumulate(last[order])
    starts = np.flatnonzero(np.append([True], first[1:] > last[:-1]))
    ends = np.append(starts[1:], [len(first)]) - 1
    grid = first[starts]
    return _Cells(grid, last[ends], [np.searchsorted(grid, span[0], side="right") - 1 for span in spans])


def _rising(places: NDArray[np.int64]) -> bool:
    return bool((np.diff(places) > 0).all())
