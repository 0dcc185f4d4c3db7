"""One net is one draw: how far a net of finite width may lie from the mean."""

from __future__ import annotations

import math
from collections.abc import Iterable


def log_gain_variance(widths: Iterable[int]) -> float:
    """Variance, in nats^2, of the log of a He ReLU net's squared norm: 5 sum of 1/n (Hanin and Nica 2018).

    `widths` are the hidden layers' widths. The mean moves as well, by minus half of this.
    """
    return 5.0 * sum(1.0 / n for n in widths)


def log_gain_sd(depth: int, width: float) -> float:
    """Standard deviation of the same for `depth` layers of one width, in nats of the squared norm.

    sqrt(5 L / n) (Hanin and Nica 2018). Halve it for the norm itself. Never call one net's gain off without
    this band.
    """
    return math.sqrt(5.0 * depth / width)
