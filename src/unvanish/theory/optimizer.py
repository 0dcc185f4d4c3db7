"""What Adam makes of a tiny gradient: it hides it, until its epsilon (Kingma and Ba 2015)."""

from __future__ import annotations

import math


def adam_suppression(second_moment: float, eps: float = 1e-8) -> float:
    """Share of its step that Adam takes: sqrt(v) / (sqrt(v) + eps), v the mean squared gradient.

    1 where eps does not matter (Kingma and Ba 2015, algorithm 1).
    """
    root = math.sqrt(second_moment)
    return root / (root + eps) if root > 0 else 0.0


def adam_constant_step(gradient: float, eps: float = 1e-8) -> float:
    """Step over lr under a constant gradient, signed: g / (|g| + eps) at every step (Kingma and Ba 2015).

    The bias corrections make both moments exact from the first step on. 0 for a gradient of 0.
    """
    return gradient / (abs(gradient) + eps) if gradient else 0.0


def adam_overshoot(step: int, beta1: float = 0.9, beta2: float = 0.999) -> float:
    """Step size in units of lr, `step` steps after a long vanished phase ended in a constant gradient.

    The old moments are 0 and the bias correction is over, so m has caught up long before v:
    (1 - beta1^k) / sqrt(1 - beta2^k), from algorithm 1 of Kingma and Ba (2015). At the defaults at most 6.57.
    """
    return float((1 - beta1**step) / math.sqrt(1 - beta2**step))


def worst_overshoot(beta1: float = 0.9, beta2: float = 0.999, *, within: int = 10_000) -> tuple[int, float]:
    """Where `adam_overshoot` is largest, and how large: (12, 6.57) at the defaults of Kingma and Ba (2015)."""
    step = max(range(1, within), key=lambda k: adam_overshoot(k, beta1, beta2))
    return step, adam_overshoot(step, beta1, beta2)
