"""The chain rule with its measured numbers: the product of factors from the loss to one parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from unvanish.schema.finding import Attribution, finite
from unvanish.schema.graph import OperationKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One factor of the product, in the order of the backward pass (from the loss towards the data).

    `gain` is the ratio of L2 norms of the backprop signal after and before this operation. `predicted` is the
    gain that mean-field theory expects here (None = no prediction), `bound` the largest gain the operation
    can have at all (sigmoid 1/4, tanh 1, ReLU 1; None = no fixed bound). Amplitudes, not squares.
    """

    name: str
    kind: OperationKind
    module: str | None
    operation: int
    gain: float
    predicted: float | None = None
    bound: float | None = None

    @property
    def decades(self) -> float:
        """log10 of the gain; -inf where nothing passes."""
        return math.log10(self.gain) if self.gain > 0 else -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The dominant path from the model's output to one parameter, at one step.

    `output_norm` (dL/d output), times the product of all factors' gains, is `signal_norm` (dL/dz at the
    parameter's own layer); times `last_factor` (dz/dw) it is `gradient_norm`. `sampled`: the fewest elements that a
    norm along the path was estimated from; None = every norm is that of all elements.
    """

    model: str
    parameter: str
    layer: str
    step: int
    loss: float
    output_layer: str
    output_norm: float
    factors: tuple[Factor, ...]
    signal_norm: float
    last_factor: float
    gradient_norm: float
    attribution: Attribution
    depth: int  # weighted layers on the path
    sampled: int | None = None

    @property
    def decades(self) -> float:
        """log10 of signal_norm / output_norm; -inf where nothing arrives."""
        if self.signal_norm <= 0 or self.output_norm <= 0:
            return -math.inf
        return math.log10(self.signal_norm / self.output_norm)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return {
            "model": self.model,
            "parameter": self.parameter,
            "layer": self.layer,
            "step": self.step,
            "loss": finite(self.loss),
            "output_layer": self.output_layer,
            "output_norm": finite(self.output_norm),
            "signal_norm": finite(self.signal_norm),
            "last_factor": finite(self.last_factor),
            "gradient_norm": finite(self.gradient_norm),
            "decades": finite(self.decades),
            "depth": self.depth,
            "sampled": self.sampled,
            "attribution": {
                k: finite(getattr(self.attribution, k))
                for k in ("activation", "weight", "norm", "skip", "other")
            },
            "factors": [
                {
                    "name": f.name,
                    "kind": f.kind,
                    "module": f.module,
                    "operation": f.operation,
                    "gain": finite(f.gain),
                    "decades": finite(f.decades),
                    "predicted": finite(f.predicted),
                    "bound": finite(f.bound),
                }
                for f in self.factors
            ],
        }
