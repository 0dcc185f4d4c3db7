"""The steps of all ranks as those of one training: losses are means over the ranks, which work on other samples."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.run import ModelRun
from unvanish.store.merge_teams import Team
from unvanish.store.series import as_array

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Steps:
    """As ModelRun has them. `filled`: losses of old steps that a rank had thinned out, read between two others."""

    steps: array[int]
    seconds: array[float]
    losses: array[float]
    unseen: frozenset[int]
    clips: array[float]
    learning_rates: array[float]
    filled: int = 0


def merged_steps(team: Team) -> Steps:
    """Every step that any rank has; its loss is the mean over the ranks whose record has one then.

    Clocks, clipping and learning rates are those of the lowest rank that has the step.
    """
    models = [m.model for m in team.members]
    columns = [np.frombuffer(m.steps, np.int64) for m in models]
    alike = all(np.array_equal(columns[0], c) for c in columns[1:])
    steps = columns[0] if alike else np.unique(np.concatenate(columns))
    total, count = np.zeros(len(steps)), np.zeros(len(steps), dtype=np.int64)
    filled = 0
    for model, own in zip(models, columns, strict=True):
        losses, seen = _losses(model, own)
        if len(own) and not alike:
            losses, seen, between = _on_grid(steps, own, losses, seen)
            filled += between
        total += np.where(seen, losses, 0.0)
        count += seen
    unseen = count == 0
    losses = np.divide(total, count, out=np.full(len(steps), np.nan), where=~unseen)
    return Steps(
        steps=as_array("q", steps),
        seconds=as_array("d", _first(models, columns, steps, "seconds")),
        losses=as_array("d", losses),
        unseen=frozenset(steps[unseen].tolist()),
        clips=as_array("d", _first(models, columns, steps, "clips")),
        learning_rates=as_array("d", _first(models, columns, steps, "learning_rates")),
        filled=filled,
    )


def _losses(model: ModelRun, steps: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
    losses = np.frombuffer(model.losses, np.float64)
    if not model.unseen_losses:
        return losses, np.ones(len(steps), dtype=bool)
    return losses, ~np.isin(steps, list(model.unseen_losses))


def _on_grid(
    grid: NDArray[np.int64], steps: NDArray[np.int64], losses: Floats, seen: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.bool_], int]:
    """A rank's losses at all steps; between two of its own that are far apart, on the line between them."""
    at = np.searchsorted(steps, grid)
    own = steps[np.minimum(at, len(steps) - 1)] == grid
    there = own & seen[np.minimum(at, len(steps) - 1)]
    out = np.zeros(len(grid))
    out[own] = losses[at[own]]
    between = ~own & (grid > steps[0]) & (grid < steps[-1])
    if between.any() and seen.any():
        out[between] = np.interp(grid[between], steps[seen], losses[seen])
        there = there | between
    return out, there, int(between.sum())


def _first(
    models: list[ModelRun], columns: list[NDArray[np.int64]], steps: NDArray[np.int64], name: str
) -> Floats:
    """A column of the lowest rank that has the step; empty where no rank recorded it at all."""
    out, empty = np.full(len(steps), np.nan), np.ones(len(steps), dtype=bool)
    any_there = False
    for model, own in zip(models, columns, strict=True):
        values = np.frombuffer(getattr(model, name), np.float64)
        if len(values) != len(own):
            continue
        any_there = True
        at = np.searchsorted(steps, own)
        fresh = empty[at] & ~np.isnan(values)  # a rank that holds no rows can't tell how much was clipped
        out[at[fresh]] = values[fresh]
        empty[at[fresh]] = False
        if not empty.any():
            break
    return out if any_there else out[:0]
