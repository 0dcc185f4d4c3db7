"""Small-sample statistics for paired trials: exact where they can be, and in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVEL = 0.95


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation with n - 1; NaN below two values."""
    if len(values) < 2:
        return math.nan
    centre = mean(values)
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1))


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval of the mean; (-inf, inf) below two values, NaN where a value is not finite."""
    if not all(map(math.isfinite, values)):
        return math.nan, math.nan
    if len(values) < 2:
        return -math.inf, math.inf
    half = student_quantile(0.5 + level / 2, len(values) - 1) * deviation(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def sign_test(differences: Sequence[float]) -> float:
    """One-sided exact p that differences below 0 are as frequent as this by chance (ties are left out)."""
    below = sum(d < 0 for d in differences)
    count = below + sum(d > 0 for d in differences)
    return sum(math.comb(count, k) for k in range(below, count + 1)) / 2.0**count


def student_quantile(probability: float, freedom: int) -> float:
    """The t with P(T < t) = probability (> 1/2), by bisection on the distribution function."""
    low, high = 0.0, 1.0
    while student_cdf(high, freedom) < probability:
        low, high = high, high * 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if student_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def student_cdf(t: float, freedom: int) -> float:
    """P(T < t) for t >= 0 and whole degrees of freedom: the finite sums of Abramowitz & Stegun 26.7.3-4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom % 2:
        term, total = cosine, 0.0
        for k in range(1, (freedom - 1) // 2 + 1):
            total += term
            term *= cosine**2 * (2 * k) / (2 * k + 1)
        return 0.5 + (angle + sine * total) / math.pi
    term, total = 1.0, 0.0
    for k in range(1, freedom // 2 + 1):
        total += term
        term *= cosine**2 * (2 * k - 1) / (2 * k)
    return 0.5 + sine * total / 2
