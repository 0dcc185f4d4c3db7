"""The parameters' statistics of one model as columns, and how old ones are thinned: mean, smallest, largest.

Index legend: rows [n], statistics [s] as PARAMETER_STATISTICS, parameters [p].
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.run import PARAMETER_STATISTICS, BlockEvent

_SHARE = PARAMETER_STATISTICS.index("gradient_nonfinite")
_SUPPRESSION = PARAMETER_STATISTICS.index("adam_suppression")
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class StatRows:
    """Rows of stat_blocks: row i stands for the measured steps from steps[i] to until[i].

    `mean`, `smallest`, `largest` [n, s, p]: over the values of these steps. `counts` [n, s, p]: how many values
    there were; None for whole steps, whose four arrays are one: `mean` is the value.
    A NaN where nothing was looked at (no gradient, so no share of non-finite values either; no Adam) is left out
    of all four. A NaN that was measured is not in `smallest` and `largest`, and makes `mean` NaN for good.
    """

    steps: NDArray[np.int64]
    until: NDArray[np.int64]
    mean: Floats
    smallest: Floats
    largest: Floats
    counts: NDArray[np.uint32] | None

    TABLE = "stat_blocks"
    GROUP = 2  # rows that become one

    @classmethod
    def of(cls, event: BlockEvent) -> StatRows:
        """The statistics of an event, without a copy where the machine is little-endian."""
        steps = np.asarray(memoryview(event.measured)).astype("<i8", copy=False)
        values = np.asarray(memoryview(event.stats)).astype(f"<{event.stats.typecode}", copy=False)
        values = values.reshape(len(steps), len(PARAMETER_STATISTICS), -1) if len(steps) else values
        return cls(steps, steps, values, values, values, None)

    @classmethod
    def read(cls, row: dict[str, Any], *, counted: bool = True) -> StatRows:
        """From a row of the table, by the names of its columns. `counted=False`: without the counts, for reading."""
        shape = (row["rows"], len(PARAMETER_STATISTICS), row["parameters"])
        steps = np.frombuffer(row["steps"], "<i8")
        mean = np.frombuffer(row["mean"] or b"", row["dtype"]).reshape(shape)
        if row["counts"] is None:
            return cls(steps, steps, mean, mean, mean, None)
        smallest, largest = (
            np.frombuffer(row[name] or b"", row["dtype"]).reshape(shape) for name in ("smallest", "largest")
        )
        counts = np.frombuffer(zlib.decompress(row["counts"]), "<u4").reshape(shape) if counted else None
        return cls(steps, np.frombuffer(row["until"], "<i8"), mean, smallest, largest, counts)

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        """The columns of the table that `read` wants."""
        return ("rows", "parameters", "dtype", "steps", "until", "counts", "mean", "smallest", "largest")

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def kind(self) -> tuple[object, ...]:
        """Rows of one kind may stand in one block. Of float32 and float64 together the wider is kept."""
        return (self.mean.shape[-1],)

    @property
    def size(self) -> int:
        """Bytes in the record, about: the counts are packed to next to nothing."""
        planes = 1 if self.counts is None else 3
        return planes * self.mean.nbytes + 2 * self.steps.nbytes

    def take(self, first: int, last: int) -> StatRows:
        """Rows `first` up to before `last`."""
        part = slice(first, last)
        counts = None if self.counts is None else self.counts[part]
        mean = self.mean[part]
        if counts is None:
            return StatRows(self.steps[part], self.until[part], mean, mean, mean, None)
        return StatRows(
            self.steps[part], self.until[part], mean, self.smallest[part], self.largest[part], counts
        )

    def joined(self, other: StatRows) -> StatRows:
        """These rows, then the others, which are of the same level; the wider and finer kind wins."""
        width = max(self.mean.shape[-1], other.mean.shape[-1])

        def both(a: NDArray[Any], b: NDArray[Any], fill: float) -> NDArray[Any]:
            return np.concatenate((_wide(a, width, fill), _wide(b, width, fill)))

        steps = np.concatenate((self.steps, other.steps))
        mean = both(self.mean, other.mean, np.nan)
        if self.counts is None or other.counts is None:
            return StatRows(steps, steps, mean, mean, mean, None)
        return StatRows(
            steps,
            np.concatenate((self.until, other.until)),
            mean,
            both(self.smallest, other.smallest, np.nan),
            both(self.largest, other.largest, np.nan),
            both(self.counts, other.counts, 0),
        )

    def looked_at(self) -> NDArray[np.uint32]:
        """How many values each mean is made of. [n, s, p]."""
        return _looked_at(self.mean) if self.counts is None else self.counts

    def thinned(self) -> StatRows:
        """Each two rows as one."""
        counts = self.looked_at()
        early, late = counts[0::2], counts[1::2]
        total = early + late
        with np.errstate(all="ignore"):
            mean = _part(self.mean[0::2], early, total) + _part(self.mean[1::2], late, total)
            mean[total == 0] = np.nan
            return StatRows(
                np.minimum(self.steps[0::2], self.steps[1::2]),
                np.maximum(self.until[0::2], self.until[1::2]),
                mean.astype(self.mean.dtype),
                np.fmin(self.smallest[0::2], self.smallest[1::2]),
                np.fmax(self.largest[0::2], self.largest[1::2]),
                total,
            )

    def row(self, block: int, model: int, level: int) -> tuple[Any, ...]:
        """The row of the table, in the order of layout.TABLES."""
        place = (block, model, level, int(self.steps.min()), int(self.until.max()), len(self.steps))
        kind = (self.mean.shape[-1], self.mean.dtype.newbyteorder("<").str)
        steps, mean = np.ascontiguousarray(self.steps), np.ascontiguousarray(self.mean)
        if self.counts is None:
            return (*place, *kind, steps, None, None, mean, None, None)
        counts = zlib.compress(self.counts.tobytes(), 1)
        smallest, largest = np.ascontiguousarray(self.smallest), np.ascontiguousarray(self.largest)
        return (*place, *kind, steps, np.ascontiguousarray(self.until), counts, mean, smallest, largest)


def _looked_at(values: Floats) -> NDArray[np.uint32]:
    """1 where a value of a whole step counts, 0 where it is NaN because nothing was looked at. [n, s, p]."""
    known = ~np.isnan(values)
    measured = known[:, _SHARE : _SHARE + 1, :] | known
    measured[:, _SUPPRESSION] = known[:, _SUPPRESSION]
    return measured.astype("<u4")


def _part(mean: Floats, count: NDArray[np.uint32], total: NDArray[np.uint32]) -> NDArray[np.float64]:
    """What one of two rows adds to their common mean; nothing where it has no value."""
    share = count / np.maximum(total, 1)
    return np.where(count == 0, 0.0, mean.astype(np.float64) * share)


def _wide(values: NDArray[Any], width: int, fill: float) -> NDArray[Any]:
    """The same with more parameters: those that came later have no value in the older rows."""
    missing = width - values.shape[-1]
    if not missing:
        return values
    return np.pad(values, ((0, 0), (0, 0), (0, missing)), constant_values=fill)
