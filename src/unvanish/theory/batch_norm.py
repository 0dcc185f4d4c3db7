"""Gradients through batch normalisation before the activation, for any batch size (Yang et al. 2019).

z = W h, u = (z - mean) / sd over the batch, h' = phi(u). The weights' scale cancels: the gain of E[delta^2]
per layer is a constant of phi and of the batch size B. A batch of one unit, centred and scaled, is a random
point of a sphere in B - 1 dimensions; the integrals are over that sphere, one and two samples at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from unvanish.theory.activations import Activation, Array, find_activation
from unvanish.theory.gaussian import derivative_moment, graded, mean, panels, second_moment

LEAST_BATCH = 4  # the mean of 1/variance is infinite up to B = 3
_WIDE_BATCH = 20_000  # from here on the limit of infinite batches is good to 1e-4
_REACH = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NormMoments:
    """What one batch-normalised layer does to mean squares.

    `variance` is the variance over the batch that phi(u) leaves for the next layer (per sw2); `derivative` is
    the share of E[delta^2] that phi' and the two projections of the norm let through; `inverse` is
    E[1/sd^2] x variance x sw2, which is 1 for infinite batches.
    """

    variance: float
    derivative: float
    inverse: float

    @property
    def gain(self) -> float:
        """The gain of E[delta^2] per layer."""
        return self.derivative * self.inverse / self.variance


def batch_norm_gain(phi: Activation, batch: int | None = None) -> float:
    """The gain of E[delta^2] per layer of linear, batch norm, phi; None = infinite batch.

    ReLU: pi / (pi - 1) (Yang et al. 2019, theorem 3.9); identity: (B - 2) / (B - 3). ValueError when B < 4.
    """
    return batch_norm_moments(phi, batch).gain


def batch_norm_moments(phi: Activation, batch: int | None = None) -> NormMoments:
    """The parts of `batch_norm_gain`. ValueError when B < 4, where the mean does not exist."""
    if batch is None or batch >= _WIDE_BATCH:
        return NormMoments(
            variance=second_moment(phi, 1.0) - mean(phi, 1.0) ** 2,
            derivative=derivative_moment(phi, 1.0),
            inverse=1.0,
        )
    if batch < LEAST_BATCH:
        raise ValueError(f"batch norm's mean gain exists from {LEAST_BATCH} rows on, received {batch}")
    return _finite_batch(phi, batch)


def _finite_batch(phi: Activation, batch: int) -> NormMoments:
    b = float(batch)

    def slope(u: Array) -> Array:
        return phi.derivative(u)

    one = _one_sample(phi, batch)
    two = _two_samples(phi, batch)
    d2 = one(lambda u: slope(u) ** 2)
    u2d2 = one(lambda u: (u * slope(u)) ** 2)
    variance = one(lambda u: phi.function(u) ** 2) - two(phi.function)
    # tr(Q D G D) with G = 1 - 11'/B (centring), Q = G - uu'/B (the norm's own derivative), D = diag(phi'(u))
    along = b * ((1 - 1 / b) * d2 - u2d2 / b)
    dd, udud = two(slope), two(lambda u: u * slope(u))
    across = b * d2 - (b * d2 + b * (b - 1) * dd) / b - (b * u2d2 + b * (b - 1) * udud) / b
    return NormMoments(variance=variance, derivative=(along - across / b) / (b - 1), inverse=b / (b - 3))


def _angles(dimension: int, kinks: list[float], turns: list[float]) -> tuple[Array, Array]:
    """Nodes t and weights of one coordinate of a uniform point on the unit sphere of that dimension.

    With t = sin(a) its density is cos(a)^(dimension - 2), smooth down to two dimensions.
    """
    top = min(math.pi / 2, _REACH / math.sqrt(dimension))
    breaks = [math.asin(t) for t in (*kinks, *turns) if abs(t) < 1]
    a, weights = panels([*breaks, *np.linspace(-top, top, 13)], -top, top)
    weights = weights * np.cos(a) ** (dimension - 2)
    return np.sin(a), weights / weights.sum()


Expectation = Callable[[Callable[[Array], Array]], float]


def _one_sample(phi: Activation, batch: int) -> Expectation:
    """E[f(u_a)] over the batch's sphere."""
    radius = math.sqrt(batch - 1)
    t, weights = _angles(batch - 1, [k / radius for k in phi.kinks], graded(phi.turns, radius, 1.0))
    return lambda f: float(np.sum(weights * f(radius * t)))


def _two_samples(phi: Activation, batch: int) -> Expectation:
    """E[f(u_a) f(u_b)], a != b: their correlation is -1 / (B - 1)."""
    radius = math.sqrt(batch - 1)
    tilt = -1 / (batch - 1)
    t, weights = _angles(batch - 1, [k / radius for k in phi.kinks], graded(phi.turns, radius, 1.0))
    inner = []
    for first in t:
        room = math.sqrt(1 - tilt * tilt) * math.sqrt(1 - first * first)
        bends = [(k / radius - tilt * first) / room for k in phi.kinks]
        s, inner_weights = _angles(batch - 2, bends, [])
        inner.append((radius * (tilt * first + room * s), inner_weights))

    def expect(f: Callable[[Array], Array]) -> float:
        given = np.array([float(np.sum(w * f(u))) for u, w in inner])
        return float(np.sum(weights * f(radius * t) * given))

    return expect


@lru_cache(maxsize=256)
def moments_by_name(
    name: str, parameters: tuple[tuple[str, float], ...], batch: int | None
) -> NormMoments | None:
    """`batch_norm_moments`, remembered (a finite batch takes 40 ms); None for a phi that is not known."""
    phi = find_activation(name, dict(parameters))
    return None if phi is None else batch_norm_moments(phi, batch)
