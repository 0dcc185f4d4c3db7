"""What Adam makes of a tiny gradient: it hides it, until its epsilon (Kingma and Ba 2015)."""

from __future__ import annotations

import math

HALF_UNDERFLOW = (
    2.0**-25
)  # a float16 at or below this rounds to zero (IEEE 754: half the least subnormal, to even)


def adam_suppression(second_moment: float, eps: float = 1e-8) -> float:
    """Share of its step that Adam takes: sqrt(v) / (sqrt(v) + eps), v the mean squared gradient.

    1 where eps does not matter; for a constant gradient g it is g / (g + eps).
    """
    root = math.sqrt(second_moment)
    return root / (root + eps) if root > 0 else 0.0


def adam_overshoot(step: int, beta1: float = 0.9, beta2: float = 0.999) -> float:
    """Step size in units of lr, `step` steps after a long vanished phase ended in a constant gradient.

    The old moments are 0 and the bias correction is over, so m has caught up long before v:
    (1 - beta1^k) / sqrt(1 - beta2^k). At the defaults 6.6 at its worst (k = 12).
    """
    return float((1 - beta1**step) / math.sqrt(1 - beta2**step))
