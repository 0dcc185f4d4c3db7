"""How a parameter's values are spread, from how they are in each of its pieces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unvanish.schema.moments import hypot
from unvanish.schema.run import SNAPSHOT_QUANTILES, Snapshot
from unvanish.store.merge_teams import Team


def merged_snapshots(team: Team) -> tuple[Snapshot, ...]:
    """Norms and extremes of the whole; quantiles between as exact as those of the pieces allow.

    Of each piece the lowest rank's; a snapshot of a step at which not all pieces were looked at is left out.
    """
    pieces: dict[tuple[int, int], dict[int, tuple[int, Snapshot]]] = {}
    for member in team.members:
        for shot in member.model.snapshots:
            shard = member.shard(shot.parameter)
            found = pieces.setdefault((shot.step, shot.parameter), {})
            found.setdefault(shard.part, (shard.numel, shot))
    held = [{m.shard(p).part for m in team.members} for p in range(len(team.lead.info.parameters))]
    return tuple(
        _whole(list(parts.values()))
        for (_, parameter), parts in sorted(pieces.items())
        if parts.keys() == held[parameter]
    )


def _whole(parts: Sequence[tuple[int, Snapshot]]) -> Snapshot:
    full = [(numel, shot) for numel, shot in parts if numel] or list(parts)
    first = full[0][1]
    if len(full) == 1:
        return first
    return Snapshot(
        model=first.model,
        step=first.step,
        parameter=first.parameter,
        norm=hypot(shot.norm for _, shot in full),
        quantiles=_mixed([numel for numel, _ in full], [shot.quantiles for _, shot in full]),
    )


def _mixed(numels: Sequence[int], quantiles: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Quantiles of all elements together: each piece's are joined by lines, and their shares are added up."""
    table = np.array(quantiles, dtype=np.float64)
    if not np.isfinite(table).all():
        return (float("nan"),) * len(SNAPSHOT_QUANTILES)
    levels = np.array(SNAPSHOT_QUANTILES)
    weights = np.array(numels, dtype=np.float64) / sum(numels)
    values = np.unique(table)
    share = sum(w * np.interp(values, row, levels) for w, row in zip(weights, table, strict=True))
    return tuple(np.interp(levels, np.maximum.accumulate(np.asarray(share)), values).tolist())
