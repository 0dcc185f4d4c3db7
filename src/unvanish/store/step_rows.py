"""The steps of one model as columns, and how old ones are thinned: real steps are kept, never averages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.run import BlockEvent

_COLUMNS = {
    "steps": "<i8",
    "seconds": "<f8",
    "losses": "<f8",
    "clips": "<f8",
    "learning_rates": "<f8",
    "unseen": "u1",  # 1: there was no loss at this step
}


@dataclass(frozen=True, slots=True)
class StepRows:
    """Rows of step_blocks: one array per column, all of one length, in the order in which they came."""

    columns: dict[str, NDArray[Any]]

    TABLE = "step_blocks"
    GROUP = 8  # rows that are thinned together, to four at most

    @classmethod
    def of(cls, event: BlockEvent) -> StepRows:
        """The columns of an event, without a copy where the machine is little-endian."""
        columns = {
            name: np.asarray(memoryview(getattr(event, name))).astype(kind, copy=False)
            for name, kind in _COLUMNS.items()
            if name != "unseen"
        }
        steps = columns["steps"]
        unseen = np.isin(steps, list(event.unseen_losses)) if event.unseen_losses else np.zeros(len(steps))
        return cls({**columns, "unseen": unseen.astype("u1")})

    @classmethod
    def read(cls, row: dict[str, Any]) -> StepRows:
        """From a row of the table, by the names of its columns."""
        return cls({name: np.frombuffer(row[name] or b"", kind) for name, kind in _COLUMNS.items()})

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        """The columns of the table that `read` wants."""
        return tuple(_COLUMNS)

    def __len__(self) -> int:
        return len(self.columns["steps"])

    @property
    def kind(self) -> tuple[object, ...]:
        """Rows of one kind may stand in one block."""
        return ()

    @property
    def size(self) -> int:
        """Bytes in the record."""
        return sum(column.nbytes for column in self.columns.values())

    def take(self, first: int, last: int) -> StepRows:
        """Rows `first` up to before `last`."""
        return StepRows({name: column[first:last] for name, column in self.columns.items()})

    def joined(self, other: StepRows) -> StepRows:
        """These rows, then the others."""
        return StepRows(
            {name: np.concatenate((column, other.columns[name])) for name, column in self.columns.items()}
        )

    def thinned(self) -> StepRows:
        """Of every GROUP rows the first, those with the smallest and the largest loss, and the first NaN."""
        losses = self.columns["losses"].reshape(-1, self.GROUP)
        nan = np.isnan(losses)
        broken = nan & (self.columns["unseen"].reshape(losses.shape) == 0)
        keep = np.zeros(losses.shape, dtype=bool)
        groups = np.arange(len(losses))
        keep[:, 0] = True
        keep[groups, np.where(nan, np.inf, losses).argmin(1)] = True
        keep[groups, np.where(nan, -np.inf, losses).argmax(1)] = True
        keep[groups, broken.argmax(1)] = True  # without any it is the first row, which is kept anyway
        return StepRows({name: column[keep.ravel()] for name, column in self.columns.items()})

    def row(self, block: int, model: int, level: int) -> tuple[Any, ...]:
        """The row of the table, in the order of layout.TABLES."""
        steps = self.columns["steps"]
        place = (block, model, level, int(steps.min()), int(steps.max()), len(steps))
        return (*place, *(np.ascontiguousarray(column) for column in self.columns.values()))
