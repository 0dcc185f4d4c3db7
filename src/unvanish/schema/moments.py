"""Sums over the elements of a tensor that merge exactly: over outputs, micro-batches, ranks and shards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Sums over the elements of one tensor, scaled up from `sampled` to `count` elements; they merge exactly.

    `norm` is the L2 norm (NaN or Inf where an element is), `total` the sum, `exponents` the log2 histogram of
    schema.graph. `deviation` is the root of the summed squared distances from the mean, scaled like the norm.
    """

    count: int
    sampled: int
    norm: float
    absmax: float
    total: float
    deviation: float
    zeros: float
    nonfinite: float
    exponents: tuple[int, ...] = ()

    @property
    def rms(self) -> float:
        """Root of the mean square."""
        return self.norm / math.sqrt(self.count) if self.count else math.nan

    @property
    def std(self) -> float:
        """Standard deviation over all elements (not corrected for their number)."""
        return self.deviation / math.sqrt(self.count) if self.count else math.nan


def combined(parts: Sequence[Moments]) -> Moments | None:
    """The moments of all parts' elements together; None for no parts."""
    if len(parts) < 2:
        return parts[0] if parts else None
    count = sum(p.count for p in parts)
    totals = [p.total for p in parts]
    total = math.fsum(totals) if all(map(math.isfinite, totals)) else sum(totals)
    mean = total / count if count else math.nan
    between = [math.sqrt(p.count) * abs(p.total / p.count - mean) for p in parts if p.count]
    histograms = [p.exponents for p in parts if p.exponents]
    return Moments(
        count=count,
        sampled=sum(p.sampled for p in parts),
        norm=hypot(p.norm for p in parts),
        absmax=largest(p.absmax for p in parts),
        total=total,
        deviation=hypot([*(p.deviation for p in parts), *between]),
        zeros=sum(p.zeros for p in parts),
        nonfinite=sum(p.nonfinite for p in parts),
        exponents=tuple(map(sum, zip(*histograms, strict=True))) if len(histograms) == len(parts) else (),
    )


def hypot(values: Iterable[float]) -> float:
    """Root of the summed squares; NaN where one of the values is (math.hypot says Inf beside an Inf)."""
    values = list(values)
    return math.nan if any(v != v for v in values) else math.hypot(*values)


def largest(values: Iterable[float]) -> float:
    """The largest; NaN where one of the values is, wherever it stands."""
    values = list(values)
    return math.nan if any(v != v for v in values) else max(values, default=math.nan)
