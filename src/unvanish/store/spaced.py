"""Which of a long row of things stand in the tables for ordinary tools: all of the first, then ever fewer."""

from __future__ import annotations

from collections.abc import Iterator

_DENSE = 4  # times `per_octave`: so many of the first are all chosen


def log_spaced(first: int, count: int, per_octave: int) -> Iterator[int]:
    """Those of `first` .. `first + count - 1` that are chosen, counted from 0 over the whole run.

    The first 4 * per_octave are, then `per_octave` of them each time that their number doubles.
    """
    at = first
    while at < first + count:
        stride = _stride(at, per_octave)
        if at % stride == 0:
            yield at
        at += stride - at % stride  # the end of an octave is a multiple of its stride


def _stride(at: int, per_octave: int) -> int:
    octave = (at // (_DENSE * per_octave)).bit_length()
    return 1 << (octave + 1) if octave else 1
