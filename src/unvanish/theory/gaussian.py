"""Expectations over a Gaussian, exact to rounding: Gauss-Legendre on panels that end at every kink.

Gauss-Hermite across a kink is wrong whatever its order (201 nodes give E[relu'^2] = .456, not .5), so it is
not used. Panels are graded around the points where the function turns, for wide Gaussians over a sigmoid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from unvanish.theory.activations import Activation, Array

_REACH = 13.0  # standard deviations; what lies beyond has the weight 1e-38
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_LEAST_VARIANCE = 1e-280  # stands for 0: the two sides of a kink at 0 count half each


def panels(breaks: Iterable[float], low: float, high: float) -> tuple[Array, Array]:
    """Nodes and weights of Gauss-Legendre quadrature on [low, high], split at the breaks that lie inside."""
    edges = np.unique(np.clip(np.array([low, high, *breaks], dtype=np.float64), low, high))
    half = 0.5 * np.diff(edges)
    middle = 0.5 * (edges[1:] + edges[:-1])
    nodes = middle[:, None] + half[:, None] * _NODES
    return nodes.ravel(), (half[:, None] * _WEIGHTS).ravel()


def graded(turns: Sequence[float], spread: float, reach: float) -> list[float]:
    """Break points around each turn at distances 1/4, 1/2, 1, 2, ..., in units of the Gaussian's sd."""
    points = []
    for turn in turns:
        distance = 0.25
        while distance < spread * reach + abs(turn) and distance < 1e6:
            points += [(turn - distance) / spread, (turn + distance) / spread]
            distance *= 2.0
    return points


def expectation(
    function: Callable[[Array], Array],
    variance: float,
    *,
    kinks: Sequence[float] = (),
    turns: Sequence[float] = (0.0,),
) -> float:
    """E[f(z)], z ~ N(0, variance). ValueError when the variance is negative or not finite."""
    if not variance >= 0 or math.isinf(variance):
        raise ValueError(f"a variance is finite and not negative, received {variance}")
    spread = math.sqrt(max(variance, _LEAST_VARIANCE))
    breaks = [k / spread for k in kinks if abs(k) < spread * _REACH]
    breaks += graded(turns, spread, _REACH)
    breaks += list(np.arange(-_REACH + 1, _REACH))
    g, weights = panels(breaks, -_REACH, _REACH)
    density = np.exp(-0.5 * g * g) / math.sqrt(2.0 * math.pi)
    return float(np.sum(weights * density * function(spread * g)))


def mean(phi: Activation, q: float) -> float:
    """E[phi(z)], z ~ N(0, q)."""
    return expectation(phi.function, q, kinks=phi.kinks, turns=phi.turns)


def second_moment(phi: Activation, q: float) -> float:
    """E[phi(z)^2], z ~ N(0, q)."""
    return expectation(lambda z: phi.function(z) ** 2, q, kinks=phi.kinks, turns=phi.turns)


def derivative_moment(phi: Activation, q: float, power: int = 2) -> float:
    """E[phi'(z)^power], z ~ N(0, q)."""
    return expectation(lambda z: phi.derivative(z) ** power, q, kinks=phi.kinks, turns=phi.turns)
