"""One claim with its prediction and what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

SURE = 4.0  # standard errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`predicted` is a number, or a lower and an upper bound. `standard_error` is None where nothing is drawn.

    `tolerance` is absolute, and `why` says what the theory leaves out that it stands for.
    """

    number: int
    claim: str
    setting: str = ""
    predicted: float | tuple[float, float]
    measured: float
    standard_error: float | None = None
    tolerance: float = 0.0
    why: str = ""

    def __post_init__(self) -> None:
        if self.tolerance and not self.why:
            raise ValueError(f"row {self.number} has a tolerance, so say what for")
        if self.standard_error is None and not self.tolerance:
            raise ValueError(f"row {self.number} needs a standard error or a tolerance")

    @property
    def distance(self) -> float:
        """Measured minus predicted; from the nearer bound, or 0 between them."""
        if isinstance(self.predicted, tuple):
            low, high = self.predicted
            return min(0.0, self.measured - low) + max(0.0, self.measured - high)
        return self.measured - self.predicted

    @property
    def deviation(self) -> float | None:
        """The distance in standard errors; None where nothing is drawn."""
        return self.distance / self.standard_error if self.standard_error else None

    @property
    def agrees(self) -> bool:
        """Within four standard errors, or within the tolerance."""
        return abs(self.distance) <= max(SURE * (self.standard_error or 0.0), self.tolerance)


def estimate(samples: Sequence[float]) -> tuple[float, float]:
    """The mean of independent samples, and its standard error."""
    return statistics.fmean(samples), statistics.stdev(samples) / math.sqrt(len(samples))


def share(hits: int, of: int) -> tuple[float, float]:
    """A frequency and its standard error."""
    p = hits / of
    return p, math.sqrt(p * (1 - p) / of)
