"""Processes of a distributed training as a short text: "0-7", "0,4,8-15", "1-61/4"."""

from __future__ import annotations

from collections.abc import Iterable


def ranks_text(ranks: Iterable[int]) -> str:
    """Sorted, runs of equal distance in one piece: 0-3 = 0,1,2,3 and 1-13/4 = 1,5,9,13."""
    left = sorted(set(ranks))
    pieces: list[str] = []
    while left:
        length = 1
        step = left[1] - left[0] if len(left) > 1 else 1
        while length < len(left) and left[length] - left[length - 1] == step:
            length += 1
        if length < 3 and step > 1:
            length = 1
        first, last = left[0], left[length - 1]
        tail = "" if length == 1 else f"-{last}" if step == 1 else f"-{last}/{step}"
        pieces.append(f"{first}{tail}")
        left = left[length:]
    return ",".join(pieces)


def said_ranks(ranks: Iterable[int]) -> str:
    """The same with its noun, for a sentence: "rank 3", "ranks 0-7"."""
    several = sorted(set(ranks))
    return f"rank {several[0]}" if len(several) == 1 else f"ranks {ranks_text(several)}"
