"""What a check before training says of one model: each layer's gain, the depth it can carry, what would carry it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCheck:
    """One weighted layer: what theory expects of it, and what a random signal sent back through it showed.

    Gains are squares: the share of the squared signal (its L2 norm) that is left behind the layer before this one,
    of what arrives at this one; 1 keeps it. Where a norm layer makes the scale of a layer arbitrary, both are taken
    times the variance of the layer's output. `band` is where one net of this width may lie around `predicted`.
    `signal`: log10 of the signal's amplitude at this layer, of what leaves the model's output.
    """

    name: str
    signal: float
    predicted: float | None = None
    band: tuple[float, float] | None = None
    measured: float | None = None
    why_no_prediction: str = ""

    @property
    def agrees(self) -> bool | None:
        """Whether the measured gain lies within the band; None where one of the two is missing."""
        if self.band is None or self.measured is None:
            return None
        return self.band[0] <= self.measured <= self.band[1]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return {
            "name": self.name,
            "predicted": _finite(self.predicted),
            "band": None if self.band is None else [_finite(b) for b in self.band],
            "measured": _finite(self.measured),
            "agrees": self.agrees,
            "why_no_prediction": self.why_no_prediction or None,
            "signal": _finite(self.signal),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How many weighted layers there are, and how many this recipe can carry (None = no end is in sight)."""

    now: int
    greatest: int | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of the model that was tried on a copy: theory's gain per layer for it, then the measured one.

    `treatment` is the contract's name of what it is about, `prescriptions` what a recipe would hold. `signal`: as in
    LayerCheck, at the data's end of the changed net. `carries`: neither lost nor run away, and no dead layer.
    """

    name: str
    title: str
    treatment: str
    prescriptions: tuple[dict[str, Any], ...]
    predicted_gain: float | None
    measured_gain: float | None
    signal: float | None
    carries: bool
    words: str

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return {
            "name": self.name,
            "title": self.title,
            "treatment": self.treatment,
            "prescriptions": [dict(p) for p in self.prescriptions],
            "predicted_gain": _finite(self.predicted_gain),
            "measured_gain": _finite(self.measured_gain),
            "signal": _finite(self.signal),
            "carries": self.carries,
            "words": self.words,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """All that was computed and measured of one model before its first step.

    `predicted_gain` and `measured_gain` are means over the hidden layers (geometric). `signal`: log10 of the
    amplitude that reaches the data's end, of what leaves the output. `changes`: the best first.
    """

    model: str
    layers: tuple[LayerCheck, ...]
    depth: Depth | None
    predicted_gain: float | None
    measured_gain: float | None
    signal: float | None
    changes: tuple[Change, ...]
    wall_seconds: float

    @property
    def compared(self) -> tuple[int, int]:
        """(layers whose measured gain lies within the band, layers that could be compared)."""
        known = [layer.agrees for layer in self.layers if layer.agrees is not None]
        return sum(known), len(known)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON holds it; every number is finite or null."""
        depth = self.depth
        return {
            "model": self.model,
            "layers": [layer.to_dict() for layer in self.layers],
            "depth": None
            if depth is None
            else {"now": depth.now, "greatest": depth.greatest, "words": depth.words},
            "predicted_gain": _finite(self.predicted_gain),
            "measured_gain": _finite(self.measured_gain),
            "signal": _finite(self.signal),
            "changes": [change.to_dict() for change in self.changes],
            "wall_seconds": round(self.wall_seconds, 3),
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
