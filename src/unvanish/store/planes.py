"""The arrays that the parameters' statistics are read into, row by row; or many rows as fewer, for an overview.

Index legend: rows [n] of the record, groups [g] that are given back, statistics [s], parameters [p].
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.run import PARAMETER_STATISTICS
from unvanish.store.stat_rows import StatRows

_EACH_END = 8  # one group in so many is for the first rows, each alone, and one for the last


def groups_of(rows: int, most: int) -> NDArray[np.int64]:
    """Which group each row goes into, so that there are `most` of them: those at both ends alone."""
    if rows <= most:
        return np.arange(rows)
    alone = most // _EACH_END
    inner, groups = rows - 2 * alone, most - 2 * alone
    middle = alone + np.arange(inner) * groups // inner
    return np.concatenate((np.arange(alone), middle, np.arange(most - alone, most)))


class Planes:
    """Arrays to be filled row by row: for each plane and statistic one of [rows x parameters]."""

    def __init__(self, rows: int, parameters: int, planes: tuple[str, ...]) -> None:
        self._shape = (rows, parameters)
        self.arrays = {
            plane: {name: array("d", [np.nan]) * (rows * parameters) for name in PARAMETER_STATISTICS}
            for plane in planes
        }

    def fill(self, places: NDArray[np.int64], rows: StatRows) -> None:
        """Put rows to their places (-1: nowhere); parameters that the model no longer has are left out."""
        width = min(self._shape[1], rows.mean.shape[-1])
        inside = places >= 0
        whole = bool(inside.all()) and bool((np.diff(places) == 1).all())
        to: Any = slice(int(places[0]), int(places[-1]) + 1) if whole else places[inside]
        for plane, arrays in self.arrays.items():
            values = getattr(rows, plane)
            for s, name in enumerate(PARAMETER_STATISTICS):
                table = np.frombuffer(arrays[name]).reshape(self._shape) if len(arrays[name]) else None
                if table is not None:
                    table[to, :width] = values[:, s, :width] if whole else values[inside, s, :width]

    def fill_cells(self, places: NDArray[Any], values: NDArray[np.float64], names: list[str]) -> None:
        """Put single values [cells x names] to their places [cells x (row, parameter)]; -1: nowhere."""
        keep = (places[:, 0] >= 0) & (places[:, 1] < self._shape[1])
        rows, parameters = places[keep, 0], places[keep, 1]
        for arrays in self.arrays.values():
            for s, name in enumerate(names):
                if name in arrays and len(arrays[name]):
                    np.frombuffer(arrays[name]).reshape(self._shape)[rows, parameters] = values[keep, s]


class MergedPlanes:
    """Mean, smallest and largest per group of rows: neighbours merge as they would have by thinning."""

    def __init__(self, groups: int, parameters: int) -> None:
        """[groups x parameters] for each statistic."""
        self._shape = (groups, parameters)
        size = groups * parameters
        self.arrays = {
            plane: {name: array("d", [first]) * size for name in PARAMETER_STATISTICS}
            for plane, first in (("mean", 0.0), ("smallest", np.nan), ("largest", np.nan))
        }
        self._counts = np.zeros((len(PARAMETER_STATISTICS), *self._shape), np.int64)

    def fill(self, groups: NDArray[np.int64], rows: StatRows) -> None:
        """Add rows to their groups (-1: nowhere)."""
        width = min(self._shape[1], rows.mean.shape[-1])
        counts = rows.looked_at()
        for group in np.unique(groups[groups >= 0]).tolist():
            at = groups == group
            for s, name in enumerate(PARAMETER_STATISTICS):
                count = counts[at, s, :width].astype(np.int64)
                with np.errstate(all="ignore"):
                    total = np.where(count == 0, 0.0, rows.mean[at, s, :width].astype(np.float64) * count)
                    self._plane("mean", name)[group, :width] += total.sum(0)
                    self._extreme(np.fmin, "smallest", name, group, rows.smallest[at, s, :width])
                    self._extreme(np.fmax, "largest", name, group, rows.largest[at, s, :width])
                self._counts[s, group, :width] += count.sum(0)

    def finish(self) -> None:
        """Make means of the sums."""
        for s, name in enumerate(PARAMETER_STATISTICS):
            mean, count = self._plane("mean", name), self._counts[s]
            with np.errstate(all="ignore"):
                mean /= np.maximum(count, 1)
            mean[count == 0] = np.nan

    def _plane(self, plane: str, name: str) -> NDArray[np.float64]:
        return np.frombuffer(self.arrays[plane][name]).reshape(self._shape)

    def _extreme(self, choose: np.ufunc, plane: str, name: str, group: int, values: NDArray[Any]) -> None:
        there = self._plane(plane, name)[group, : values.shape[1]]
        there[:] = choose(there, choose.reduce(values, axis=0))
