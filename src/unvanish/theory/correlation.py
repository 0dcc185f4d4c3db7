"""Two inputs at once: how alike they still are after a layer, and where that ends (Poole et al. 2016).

Convention. Both inputs have the length q, z_a and z_b are jointly Gaussian with the correlation c. All numbers
are of wide nets; c has no unit and lies in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from unvanish.theory.activations import Activation, Array
from unvanish.theory.gaussian import expectation, graded, second_moment
from unvanish.theory.mean_field import bisect, chi, fixed_point

_REACH = 9.0  # standard deviations; two of them at once: what lies beyond has the weight 1e-17
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_ALIKE = 1e-13  # 1 - |c| below this is |c| = 1


def correlation_map(phi: Activation, c: float, q: float, sw2: float, sb2: float) -> float:
    """Correlation of two inputs after one more layer: (sw2 E[phi(z_a) phi(z_b)] + sb2) / q_next.

    q_next is the length map's value, so that 1 is a fixed point at any q (Poole et al. 2016, equation 5).
    ValueError when c is not in [-1, 1].
    """
    both = sw2 * _pair(phi.function, phi, c, q) + sb2
    return both / (sw2 * second_moment(phi, q) + sb2)


def correlation_slope(phi: Activation, c: float, q: float, sw2: float) -> float:
    """Slope of the correlation map at q*: sw2 E[phi'(z_a) phi'(z_b)].

    At c = 1 it is chi_1 (Schoenholz et al. 2016). ValueError when c is not in [-1, 1].
    """
    return sw2 * _pair(phi.derivative, phi, c, q)


def correlation_fixed_point(phi: Activation, sw2: float, sb2: float) -> float | None:
    """c*, where the correlation of two inputs ends; None where their lengths grow without bound.

    1 where chi_1 <= 1 (all inputs end alike: order), below 1 where chi_1 > 1 (chaos). On [0, 1] the map is a power
    series without negative coefficients (Daniely et al. 2016), so there is one such point. Where the length ends
    at 0, that is 1 too: nothing is left that could differ (Poole et al. 2016).
    """
    q = fixed_point(phi, sw2, sb2)
    if q is None:
        return None
    if q == 0 or chi(phi, q, sw2) <= 1:
        return 1.0

    def rises(c: float) -> float:
        return correlation_map(phi, c, q, sw2, sb2) - c

    low, high = 0.0, 1.0 - 1e-6
    if rises(low) <= 1e-14:
        return 0.0
    return bisect(rises, low, high, steps=45) if rises(high) < 0 else 1.0


def correlation_depth_scale(phi: Activation, sw2: float, sb2: float) -> float | None:
    """xi_c, layers per factor e of |c - c*|: -1 / ln of the map's slope at c* (Schoenholz et al. 2016).

    The information of two inputs dies over this depth; in the ordered phase it is that of the gradient's square.
    None where the lengths grow without bound.
    """
    q, c = fixed_point(phi, sw2, sb2), correlation_fixed_point(phi, sw2, sb2)
    if q is None or c is None:
        return None
    slope = correlation_slope(phi, c, q, sw2)
    return math.inf if slope >= 1 else 0.0 if slope <= 0 else -1 / math.log(slope)


def _pair(f: Callable[[Array], Array], phi: Activation, c: float, q: float) -> float:
    """E[f(z_a) f(z_b)], split at each kink of phi in both."""
    if not -1 <= c <= 1:
        raise ValueError(f"a correlation lies in [-1, 1], received {c}")
    if abs(c) > 1 - _ALIKE:
        kinks = (*phi.kinks, *(-k for k in phi.kinks))
        return expectation(lambda z: f(z) * f(math.copysign(1.0, c) * z), q, kinks=kinks, turns=phi.turns)
    spread = math.sqrt(max(q, 1e-200))
    rest = math.sqrt(1 - c * c)  # z_b = spread (c g + rest h)
    turns = [t / spread for t in (*phi.kinks, *phi.turns)]
    breaks = [*np.arange(-_REACH, _REACH + 1), *turns, *graded(phi.turns, spread, _REACH)]
    for turn in turns:  # E[f(z_b) | z_a] turns within rest of it
        scale = rest
        while scale < 1:
            breaks += [turn - scale, turn + scale]
            scale *= 2
    g, weights = _legendre(np.sort(np.clip(np.array([breaks]), -_REACH, _REACH)))
    g, weights = g[0], weights[0]
    fixed = np.broadcast_to(np.arange(-_REACH, _REACH + 1), (len(g), int(2 * _REACH) + 1))
    points = turns + graded(phi.turns, spread, _REACH)
    moving = (np.array(points)[None, :] - c * g[:, None]) / rest
    h, inner = _legendre(np.sort(np.clip(np.hstack([fixed, moving]), -_REACH, _REACH), axis=1))
    given = np.sum(inner * _density(h) * f(spread * (c * g[:, None] + rest * h)), axis=1)
    return float(np.sum(weights * _density(g) * f(spread * g) * given))


def _density(g: Array) -> Array:
    return np.exp(-0.5 * g * g) / math.sqrt(2 * math.pi)


def _legendre(edges: Array) -> tuple[Array, Array]:
    """Nodes and weights between sorted edges, row by row."""
    half = 0.5 * np.diff(edges, axis=1)[:, :, None]
    middle = 0.5 * (edges[:, 1:] + edges[:, :-1])[:, :, None]
    rows = len(edges)
    return (middle + half * _NODES).reshape(rows, -1), (half * _WEIGHTS).reshape(rows, -1)
