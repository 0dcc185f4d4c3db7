"""ReLU nets that are dead before they train, a disease of narrow nets (Lu et al. 2019)."""

from __future__ import annotations


def layer_survives(width: int) -> float:
    """Probability that a ReLU layer without biases passes one input on: 1 - 2^-N."""
    return 1.0 - 2.0**-width


def born_dead_ray(width: int, depth: int) -> float:
    """Probability that a bias-free ReLU net of `depth` hidden layers is 0 along one ray: 1-(1-2^-N)^H."""
    return 1.0 - layer_survives(width) ** depth


def born_dead_bounds(width: int, layers: int) -> tuple[float, float]:
    """Lower and upper bound on the probability that a net with input dimension 1 is born dead.

    `layers` counts the weighted layers, L = hidden + 1, and is 3 at least (Lu et al. 2019, theorem 2).
    """
    p1 = layer_survives(width)
    p2 = 1.0 - 2.0 ** (1 - width) - (width - 1) * 2.0 ** (-2 * width)
    share = (1 - 2.0 ** (1 - width)) * (1 - 2.0**-width) / (1 + (width - 1) * 2.0**-width)
    lower = 1.0 - p1 ** (layers - 2) + share * (p2 ** (layers - 2) - p1 ** (layers - 2))
    return lower, born_dead_ray(width, layers - 1)
