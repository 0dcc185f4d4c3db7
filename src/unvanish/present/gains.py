"""What stands beside the signal map: the gain of every layer, and the steps at which no weight changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from unvanish.schema.graph import Graph, Operation
from unvanish.schema.run import ModelRun


def skipped_columns(model: ModelRun, steps: Sequence[int]) -> list[int]:
    """The columns at whose step no weight changed at all: a step that a scaler left out, or a rate of zero."""
    at = {step: i for i, step in enumerate(model.parameter_steps)}
    changed, width = model.parameter_stats.get("update_changed"), len(model.info.parameters)
    if changed is None or not width or len(changed) != width * len(at):
        return []
    found = []
    for column, step in enumerate(steps):
        if step in at:
            row = [v for v in changed[at[step] * width : (at[step] + 1) * width] if math.isfinite(v)]
            if row and max(row) == 0:
                found.append(column)
    return found


def layer_gains(
    rows: Sequence[str],
    last: Sequence[float | str],
    graph: Graph,
    named: Mapping[str, Operation],
) -> list[float | None]:
    """Decades that the signal gained or lost on its way into each layer from the next one towards the loss.

    Where several layers follow, the one with the most signal counts. None: no layer follows (the output), or one of
    the two has no number.
    """
    signal = dict(zip(rows, last, strict=True))
    owner = {o.index: row for row, o in named.items() if row in signal}
    # of each operation, the signal of the strongest layer that its result runs into
    best: dict[int, float] = {}
    for operation in reversed(graph.operations):
        row = owner.get(operation.index)
        here = best.get(operation.index) if row is None else signal[row]
        if not isinstance(here, float):
            continue
        for parent in operation.parents:
            best[parent] = max(best.get(parent, here), here)
    gains: dict[str, float] = {}
    for index, row in owner.items():
        cell = signal[row]
        if index in best and isinstance(cell, float):
            gains[row] = round(cell - best[index], 2)
    return [gains.get(row) for row in rows]
