"""The rules of thumb that other tools warn by, on the numbers of a recorded run: what ours is put beside."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unvanish.diagnose.motion import Motion
from unvanish.schema.run import ModelRun

LATE = 20  # measured steps that are looked at
GUARD = 1e-8  # a last layer's gradient below this says nothing


def _mean_sizes(model: ModelRun) -> NDArray[np.float64]:
    """Mean |g| of every weight tensor (more than one dimension), in order: the median over the last steps."""
    motion = Motion(model, math.nan)
    table = motion.column("gradient_rms")[-LATE:, [p.index for p in motion.weights]]
    # |g| of a Gaussian is 0.8 of its rms; these rules know orders of magnitude only
    medians = [
        float(np.median(c[np.isfinite(c)])) * 0.8 if np.isfinite(c).any() else math.nan for c in table.T
    ]
    return np.array(medians)


def tiny_gradient(model: ModelRun) -> bool:
    """Mean |g| below 1e-7 in any layer."""
    sizes = _mean_sizes(model)
    return bool((sizes < 1e-7).any())


def first_over_last(model: ModelRun) -> bool:
    """The first layer's gradient below a thousandth of the last one's, where that is not tiny itself."""
    sizes = _mean_sizes(model)
    sizes = sizes[np.isfinite(sizes)]
    return len(sizes) > 1 and bool(sizes[-1] > GUARD and sizes[0] < 1e-3 * sizes[-1])


def hundredfold(model: ModelRun) -> bool:
    """First and last layer a hundred times apart, either way."""
    sizes = _mean_sizes(model)
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return len(sizes) > 1 and bool(max(sizes[0] / sizes[-1], sizes[-1] / sizes[0]) >= 100)


THRESHOLDS: dict[str, Callable[[ModelRun], bool]] = {
    "mean |g| < 1e-7": tiny_gradient,
    "first/last < 1e-3, guarded": first_over_last,
    "first and last 100x apart": hundredfold,
}
