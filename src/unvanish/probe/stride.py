"""Which fixed stride a large tensor is sampled with, so that no pattern in it is walked along.

A stride of 4,097 through a 4,096 x 4,096 matrix would look at its diagonal alone, one of 65,537 at every 16th row.
Elements k * stride are spread over something that repeats every `period` elements (rows, pairs of rows, channels,
diagonals) as evenly as the continued fraction of stride / period is hard to cut short: Steinhaus' three distances.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

_CANDIDATES = 96
_SPARE = 0.2  # so much longer than it need be may a stride be
_GOOD = 4.0  # a gap so many times as wide as it need be; the golden section gives up to 2, for one period

_A_MATRIX = 16  # the shortest row whose diagonal matters


@lru_cache(maxsize=4096)
def stride_for(shape: Sequence[int], target: int) -> int:
    """A stride by which at most `target` elements are looked at; `shape` in the order of memory, the last innermost.

    It is odd, and coprime to every side but the outermost, so that every unit is looked at.
    """
    numel = math.prod(shape)
    least = max(1, -(-numel // target))
    if least == 1:
        return 1
    sides = [side for side in shape if side > 1]
    periods = sorted(_periods(sides))
    samples = numel // least
    best, best_cost = 0, math.inf
    for stride in _candidates(least, sides[1:]):
        crowd = max((_crowd(stride, period, samples) for period in periods), default=1.0)
        cost = max(crowd, _GOOD) * stride / least
        if cost < best_cost:
            best, best_cost = stride, cost
        if crowd <= _GOOD:
            break
    return best


def _candidates(least: int, inner: Sequence[int]) -> Iterator[int]:
    """Strides from `least` on that are odd and coprime to the inner sides, some of many where there is a choice."""
    step = max(1, int(least * _SPARE) // _CANDIDATES) | 1
    stride, found = least, 0
    while found < _CANDIDATES and (not found or stride <= least * (1 + _SPARE) + 8):
        if stride % 2 and all(math.gcd(stride, side) == 1 for side in inner):
            yield stride
            found += 1
            stride += step
        else:
            stride += 1


def _periods(sides: Sequence[int]) -> set[int]:
    """After how many elements something repeats: each inner block, two and four of them, and a matrix's diagonals."""
    periods = set()
    block = 1
    for side in reversed(sides[1:]):
        block *= side
        periods |= {block, 2 * block, 4 * block}
    if sides and sides[-1] >= _A_MATRIX:
        periods |= {sides[-1] - 1, sides[-1] + 1}
    return {period for period in periods if 2 < period <= math.prod(sides) // 2}


def _crowd(stride: int, period: int, samples: int) -> float:
    """The widest gap between samples, taken round the period, over what it would be if they lay evenly."""
    most = min(samples, period)
    before, places = 0, 1  # denominators of two convergents
    whole, part = period, stride % period
    while part:
        quotient, rest = divmod(whole, part)
        before, places = places, quotient * places + before
        if places >= most:
            return most * ((1 - most / places) / before + 1 / places)
        whole, part = part, rest
    return most / places  # the same places over and over
