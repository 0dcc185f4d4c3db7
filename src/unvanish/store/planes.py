"""The arrays that the parameters' statistics are read into, row by row; or many rows as fewer, for an overview.

Index legend: rows [n] of the record, groups [g] that are given back, statistics [s], parameters [p].
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.run import PARAMETER_STATISTICS
from unvanish.store.stat_rows import StatRows

_EACH_END = 8  # one group in so many is for the first rows, each alone, and one for the last
_KEPT_BYTES = (
    48 * 1024**2
)  # of arrays that were asked for; who goes through many of a large record keeps none twice

V = TypeVar("V")


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

    def __init__(
        self,
        rows: int,
        parameters: int,
        planes: tuple[str, ...],
        names: tuple[str, ...] = PARAMETER_STATISTICS,
    ) -> None:
        self._shape = (rows, parameters)
        self.arrays = {
            plane: {name: array("d", [np.nan]) * (rows * parameters) for name in names} for plane in planes
        }

    def fill(self, places: NDArray[np.int64], rows: StatRows) -> None:
        """Put rows to their places (-1: nowhere); parameters that the model no longer has are left out."""
        width = min(self._shape[1], rows.mean.shape[-1])
        inside = places >= 0
        whole = bool(inside.all()) and bool((np.diff(places) == 1).all())
        to: Any = slice(int(places[0]), int(places[-1]) + 1) if whole else places[inside]
        for plane, arrays in self.arrays.items():
            values = getattr(rows, plane)
            for name, array_of in arrays.items():
                s = PARAMETER_STATISTICS.index(name)
                table = np.frombuffer(array_of).reshape(self._shape) if len(array_of) else None
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


class PackedPlanes:
    """The blocks of a record as they are in it, float32 as a rule: arrays are made of them when they are asked for.

    As wide arrays all planes of a large record together take several times what the blocks do, and who reads one
    statistic needs one of them.
    """

    def __init__(
        self, rows: int, parameters: int, blocks: Sequence[tuple[NDArray[np.int64], StatRows]]
    ) -> None:
        """`blocks`: the places of a block's rows (-1: nowhere), and these."""
        self._shape = (rows, parameters)
        self._blocks = blocks

    def table(self, plane: str, name: str) -> array[float]:
        """[rows x parameters] of one plane and statistic, NaN where a row has none."""
        planes = Planes(*self._shape, (plane,), (name,))
        for places, rows in self._blocks:
            planes.fill(places, rows)
        return planes.arrays[plane][name]

    def means(self) -> Mapping[str, array[float]]:
        """By statistic."""
        return ByStatistic(lambda name: self.table("mean", name), 8 * self._shape[0] * self._shape[1])

    def extremes(self) -> Mapping[str, tuple[array[float], array[float]]]:
        """(smallest, largest) by statistic."""
        return ByStatistic(
            lambda name: (self.table("smallest", name), self.table("largest", name)),
            16 * self._shape[0] * self._shape[1],
        )


class ByStatistic(Mapping[str, V]):
    """What is made for each of PARAMETER_STATISTICS when it is asked for. Those asked for last are kept."""

    def __init__(self, make: Callable[[str], V], size: int) -> None:
        """`size`: bytes of one."""
        self._make = make
        self._most = max(1, _KEPT_BYTES // max(1, size))
        self._made: dict[str, V] = {}

    def __getitem__(self, name: str) -> V:
        if name not in PARAMETER_STATISTICS:
            raise KeyError(name)
        value = self._made.pop(name) if name in self._made else self._make(name)
        self._made[name] = value
        while len(self._made) > self._most:
            del self._made[next(iter(self._made))]
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(PARAMETER_STATISTICS)

    def __len__(self) -> int:
        return len(PARAMETER_STATISTICS)


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
