"""The chain rule with its measured numbers: the product of factors from the loss to one parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unvanish.schema.finding import Attribution, Cause, TreatmentName, finite
from unvanish.schema.graph import OperationKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One factor of the product, in the order of the backward pass (from the loss towards the data).

    `gain` is the ratio of L2 norms of the backprop signal after and before this operation. `predicted` is the
    gain that mean-field theory expects here (None = no prediction), `bound` the largest gain the operation
    can have at all (sigmoid 1/4, tanh 1, ReLU 1; a weight's largest singular value and a norm's largest scale
    over sigma, where they were measured; None = no bound is known). Amplitudes, not squares. `open_share`: of a
    ReLU and its kind, the share of places at which it lets the signal through, 0..1.
    """

    name: str
    kind: OperationKind
    module: str | None
    operation: int
    gain: float
    predicted: float | None = None
    bound: float | None = None
    open_share: float | None = None

    @property
    def decades(self) -> float:
        """log10 of the gain; -inf where nothing passes."""
        return math.log10(self.gain) if self.gain > 0 else -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One of several ways at a fork. `norm`: the L2 norm of the signal on it, `share`: its part of all squared norms.

    `followed`: the chain goes this way, the one with the largest norm.
    """

    label: str
    operation: int
    norm: float
    share: float
    followed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """A place with several ways. Seen from the loss: at a `sum` they meet again, and their signals add up.

    At an `attention` they part: what arrives goes on through the values and through the softmax. `layer` is where
    it lies, `gain` the norm of the sum over the largest of its parts (None: they part here).
    """

    kind: Literal["sum", "attention"]
    layer: str
    operation: int
    gain: float | None
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeStep:
    """One time step of a recurrence, in the order of the data.

    `signal_norm`: the L2 norm of the backprop signal there. `gradient_norm`: of what this step adds to the recurrent
    weight's gradient (None = not measured).
    """

    step: int
    signal_norm: float
    gradient_norm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """The signal's way back through time in one recurrent layer. `gain_per_step` is the geometric mean."""

    layer: str
    steps: tuple[TimeStep, ...]
    fused: bool  # one operation for all time steps, looked into from beside

    @property
    def gain_per_step(self) -> float | None:
        """From the last time step to the first; None where that can't be said."""
        first, last = self.steps[0].signal_norm, self.steps[-1].signal_norm
        if not (math.isfinite(first) and math.isfinite(last)) or last <= 0 or len(self.steps) < 2:
            return None
        return float((first / last) ** (1 / (len(self.steps) - 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The dominant path from the model's output to one parameter, at one step.

    `output_norm` (dL/d output), times the product of all factors' gains, is `signal_norm` (dL/dz at the
    parameter's own layer); times `last_factor` (dz/dw) it is `gradient_norm`. `sampled`: the fewest elements that a
    norm along the path was estimated from; None = every norm is that of all elements. `uses`: how often the parameter
    enters the loss; the chain follows its first use, and its gradient is the sum over all of them.
    `cause` says what is to blame for a signal that is lost or blown up on the way, and `treatments` what may mend it;
    None where it arrives within e^-3 and e^3 of its size.
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
    uses: int = 1
    cause: Cause | None = None
    treatments: tuple[TreatmentName, ...] = ()
    forks: tuple[Fork, ...] = ()
    recurrences: tuple[Recurrence, ...] = ()

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
            "uses": self.uses,
            "cause": self.cause,
            "treatments": list(self.treatments),
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
                    "open_share": finite(f.open_share),
                }
                for f in self.factors
            ],
            "forks": [_fork(fork) for fork in self.forks],
            "recurrences": [_recurrence(r) for r in self.recurrences],
        }


def _fork(fork: Fork) -> dict[str, Any]:
    return {
        "kind": fork.kind,
        "layer": fork.layer,
        "operation": fork.operation,
        "gain": finite(fork.gain),
        "ways": [
            {
                "label": w.label,
                "operation": w.operation,
                "norm": finite(w.norm),
                "share": finite(w.share),
                "followed": w.followed,
            }
            for w in fork.ways
        ],
    }


def _recurrence(r: Recurrence) -> dict[str, Any]:
    steps: Sequence[TimeStep] = r.steps
    return {
        "layer": r.layer,
        "fused": r.fused,
        "gain_per_step": finite(r.gain_per_step),
        "steps": [
            {"step": t.step, "signal_norm": finite(t.signal_norm), "gradient_norm": finite(t.gradient_norm)}
            for t in steps
        ],
    }
