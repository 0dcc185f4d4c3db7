"""How deep a net of this recipe may be: six depth scales of its own gain per layer."""

from __future__ import annotations

import math

from unvanish.schema.check import Depth
from unvanish.theory.mean_field import trainable_depth

NO_END = 100_000  # layers: what lies beyond is no limit


def depth_of(layers: int, predicted: float | None, measured: float | None) -> Depth | None:
    """From theory's gain per layer (a square), else from the measured one; None where there is neither."""
    gain, source = (predicted, "predicted") if predicted is not None else (measured, "measured")
    if gain is None:
        return None
    reach = trainable_depth(gain)
    if reach >= NO_END:
        return Depth(now=layers, greatest=None, words="no end is in sight: every layer keeps the signal")
    greatest = max(1, 1 + math.floor(reach))
    kept = f"a {source} gain of {gain:.3g} per layer"
    ample = "it has" if layers <= greatest else "more than it can carry: it has"
    return Depth(
        now=layers,
        greatest=greatest,
        words=f"{kept} carries a signal through {greatest} weighted layers (e^3 up or down); {ample} {layers}",
    )
