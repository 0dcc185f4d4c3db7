"""Wide random nets: how the length of a signal and of its gradient change from layer to layer.

Poole et al. (2016), Schoenholz et al. (2016). Var W = sw2 / fan_in, Var b = sb2, q_l = E[z_l^2]. All gains
are those of mean squares: chi = .25 halves the gradient's rms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unvanish.theory.activations import Activation
from unvanish.theory.gaussian import derivative_moment, second_moment

VANISHING_GAIN = math.exp(
    -3.0
)  # rms gain through the whole net below which SGD stalls: 6 xi, as an amplitude
DEPTH_SCALES = 6.0  # a net trains up to about 6 xi layers (Schoenholz et al. 2016)
_LEAST_Q, _MOST_Q = 1e-12, 1e8


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalPoint:
    """Where chi_1 = 1: neither vanishing nor exploding. `q` is the length's fixed point there."""

    sw2: float
    q: float


def length_map(phi: Activation, q: float, sw2: float, sb2: float) -> float:
    """Give q of the next layer: sw2 E[phi(sqrt(q) g)^2] + sb2 (Poole et al. 2016)."""
    return sw2 * second_moment(phi, q) + sb2


def chi(phi: Activation, q: float, sw2: float) -> float:
    """The gain of E[delta^2] over one layer at length q: sw2 E[phi'^2] (Poole et al. 2016)."""
    return sw2 * derivative_moment(phi, q)


def lengths(phi: Activation, sw2: float, sb2: float, first: float, depth: int) -> tuple[float, ...]:
    """q_1 ... q_depth, where q_1 = `first` is the mean square of the first layer's output (Poole et al. 2016).

    What a net of finite depth has: near criticality it does not come close to the fixed point.
    """
    found = [first] if depth > 0 else []
    while len(found) < depth:
        found.append(length_map(phi, found[-1], sw2, sb2))
    return tuple(found)


def gain_at_depth(phi: Activation, sw2: float, sb2: float, first: float, depth: int) -> float:
    """The geometric mean of chi over the depth - 1 steps between `depth` layers (Schoenholz et al. 2016).

    chi is taken at each layer's own q_l. ValueError when there is no step.
    """
    if depth < 2:
        raise ValueError(f"a gain lies between two layers, received a depth of {depth}")
    steps = [chi(phi, q, sw2) for q in lengths(phi, sw2, sb2, first, depth - 1)]
    return 0.0 if min(steps) <= 0 else math.exp(sum(map(math.log, steps)) / len(steps))


def fixed_point(phi: Activation, sw2: float, sb2: float, start: float = 1.0) -> float | None:
    """q*, where the length map ends when it starts at `start`; None when it grows without bound.

    Found by its crossing of the diagonal, as plain iteration is slow where it matters most (chi_1 near 1).
    """

    def rises(q: float) -> float:
        return length_map(phi, q, sw2, sb2) - q

    here = rises(start)
    if abs(here) <= 1e-13 * start:
        return start
    factor = 1.25 if here > 0 else 1 / 1.25
    q = start
    while _LEAST_Q < q < _MOST_Q:
        beyond = q * factor
        if (rises(beyond) > 0) != (here > 0):
            return bisect(rises, min(q, beyond), max(q, beyond))
        q = beyond
    return None if here > 0 else 0.0


def chi_1(phi: Activation, sw2: float, sb2: float) -> float | None:
    """Give chi at the fixed point of the length map; None when there is none (Schoenholz et al. 2016)."""
    q = fixed_point(phi, sw2, sb2)
    return None if q is None else chi(phi, q, sw2)


def critical_point(phi: Activation, sb2: float) -> CriticalPoint | None:
    """The edge of chaos for this Var b: the least q where chi_1 = 1 (Schoenholz et al. 2016).

    None when no sw2 is critical (a ReLU with biases: its length has no fixed point at chi_1 = 1).
    """
    if sb2 == 0 and phi.function(np.zeros(1))[0] == 0:
        return CriticalPoint(sw2=1 / derivative_moment(phi, 0.0), q=0.0)

    def excess(q: float) -> float:
        return q - second_moment(phi, q) / derivative_moment(phi, q) - sb2

    grid = [float(q) for q in np.geomspace(1e-9, 1e6, 301)]
    values = [excess(q) for q in grid]
    for low, high, at_low, at_high in zip(grid, grid[1:], values, values[1:], strict=False):
        if (at_low < 0) != (at_high < 0) and abs(at_high) > 1e-12 * high:
            q = bisect(excess, low, high)
            return CriticalPoint(sw2=1 / derivative_moment(phi, q), q=q)
    return None


def depth_scale(chi_: float) -> float:
    """The depth scale xi = 1 / |ln chi|: layers per factor e of E[delta^2] (Schoenholz et al. 2016)."""
    return math.inf if chi_ == 1 else 0.0 if chi_ <= 0 else 1 / abs(math.log(chi_))


def trainable_depth(chi_: float) -> float:
    """About 6 xi layers: where E[delta^2] has changed by e^6, the rms by e^3 (Schoenholz et al. 2016)."""
    return DEPTH_SCALES * depth_scale(chi_)


def bisect(f: Callable[[float], float], low: float, high: float, steps: int = 200) -> float:
    """The root of f between two points where its signs differ, to rounding or so many halvings."""
    negative_low = f(low) < 0
    for _ in range(steps):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if (f(middle) < 0) == negative_low:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
