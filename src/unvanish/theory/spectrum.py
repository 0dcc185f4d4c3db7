"""Singular values of a layer's and of a whole net's Jacobian."""

from __future__ import annotations

import math

from unvanish.theory.activations import Activation
from unvanish.theory.gaussian import derivative_moment


def mean_singular_value(weight_variance: float) -> float:
    """Mean singular value of a square Gaussian matrix with fan_in * Var(W) = `weight_variance`.

    8 / (3 pi) times its root (the quarter-circle law). Glorot and Bengio (2010) report .5 and .8 for their
    standard (1/3) and normalised (1) initialisation.
    """
    return 8.0 / (3.0 * math.pi) * math.sqrt(weight_variance)


def spectrum_variance(phi: Activation, q: float, depth: int, *, orthogonal: bool) -> float:
    """Variance of the eigenvalues of J J^T over the square of their mean, at length q.

    L (E[phi'^4] / E[phi'^2]^2 - 1 + s), s = 1 for Gaussian and 0 for orthogonal weights (Pennington et al.
    2017, "Resurrecting the sigmoid"). 0 is dynamical isometry.
    """
    flatness = derivative_moment(phi, q, 4) / derivative_moment(phi, q, 2) ** 2
    return depth * (flatness - 1.0 + (0.0 if orthogonal else 1.0))
