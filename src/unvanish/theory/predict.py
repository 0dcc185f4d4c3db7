"""The gain per layer that theory expects of a net before it trains, factor by factor.

Convention. chi of layer l is E[delta_{l-1}^2] / E[delta_l^2], where delta is dL/dz and z a weighted layer's
output: it crosses the weights of layer l, then the activation and the norm that follow layer l-1 (`after`).
A square, then: a chi of .02 shrinks the gradient's rms 7 times. The first layer has none.

The factors are amplitudes, as the backward graph's edges show them: ratios of L2 norms. L2 norms and means of
squares differ by the layers' sizes, so (activation x weight x norm x skip)^2 x fan_out / fan_in is chi_raw.

Norms make a layer's scale arbitrary (double W under a batch norm: same function, half the gradient). Where
one lies at either end, chi is taken times Var z_{l-1} / Var z_l, which no rescaling moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unvanish.schema.architecture import LayerSpec
from unvanish.theory.activations import Activation, find_activation
from unvanish.theory.batch_norm import LEAST_BATCH, NormMoments, moments_by_name
from unvanish.theory.gaussian import derivative_moment, mean, second_moment

_KNOWN_NORMS = ("none", "batch", "layer", "rms")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPrediction:
    """What theory says of one weighted layer; None where it has no say, and `reason` says why.

    See the module's docstring for the convention. `length` is q = E[z^2] of the layer's output (under a batch
    norm: its variance over the batch), `bound` the largest gain that the crossed activation can have.
    """

    name: str
    after: str | None = None  # the layer whose activation and norm are crossed
    chi: float | None = None
    chi_raw: float | None = None
    chi_scale_free: float | None = None
    activation_factor: float | None = None
    weight_factor: float | None = None
    norm_factor: float | None = None
    skip_factor: float | None = None
    length: float | None = None
    bound: float | None = None
    reason: str = ""

    @property
    def norm_gain(self) -> float | None:
        """The squared gain of delta's L2 norm: the factors' product, with no say of widths or strides."""
        factors = (self.activation_factor, self.weight_factor, self.norm_factor, self.skip_factor)
        known = [f for f in factors if f is not None]
        return math.prod(known) ** 2 if len(known) == len(factors) else None


@dataclass(frozen=True, slots=True)
class _Signal:
    """Moments of h, what enters the next layer: over units, and over the batch for each unit."""

    second: float
    mean: float
    batch_variance: float | None  # None = not known: it takes the samples' correlation


@dataclass(frozen=True, slots=True)
class _Crossed:
    """A layer that theory could follow: its length and what crossing its norm and activation costs."""

    spec: LayerSpec
    length: float
    activation: float  # E[phi'^2], with the batch norm's projections where there are any
    norm: float  # 1 / Var z where a norm divides by it, else 1
    bound: float
    signal: _Signal  # what it hands on


def predict_gains(layers: Sequence[LayerSpec]) -> tuple[LayerPrediction, ...]:
    """One prediction per layer, in order. The length q_l runs from the measured input, layer by layer.

    Inputs are taken as centred (mean 0 over features and samples). After a layer that theory can't follow it
    starts anew from the next measured `input_second_moment`.
    """
    made: list[LayerPrediction] = []
    before: _Crossed | None = None
    previous_name: str | None = None
    for spec in layers:
        crossed = _cross(spec, before)
        if isinstance(crossed, str):
            made.append(LayerPrediction(name=spec.name, after=previous_name, reason=crossed))
        elif before is None:
            reason = "nothing lies before the first layer"
            if previous_name is not None:
                reason = f"{previous_name}, before it, can't be followed"
            made.append(
                LayerPrediction(name=spec.name, after=previous_name, length=crossed.length, reason=reason)
            )
        else:
            made.append(_prediction(before, crossed))
        before = None if isinstance(crossed, str) else crossed
        previous_name = spec.name
    return tuple(made)


def gain_per_layer(predictions: Sequence[LayerPrediction]) -> float | None:
    """Geometric mean of chi between hidden layers (a square: 1 = kept); None when any of them has none.

    The output layer counts only where it is the only one with a chi: its width is the number of classes.
    """
    inner = predictions[1:-1] or predictions[1:]
    values = [p.chi for p in inner]
    known = [chi for chi in values if chi is not None]
    if not known or len(known) < len(values):
        return None
    if min(known) <= 0:
        return 0.0
    return math.exp(sum(math.log(chi) for chi in known) / len(known))


def _refusal(spec: LayerSpec, phi: Activation | None) -> str:
    """Why theory has no say on this layer; empty when it has."""
    if not spec.predictable:
        return "something lies between that theory has no say on"
    if phi is None:
        return f"theory has no say on the activation {spec.activation}"
    if spec.norm not in _KNOWN_NORMS:
        return f"theory has no say on {spec.norm} norm"
    if spec.skip == "projection":
        return "theory has no say on skips with a projection"
    if spec.norm == "batch" and spec.batch is not None and spec.batch < LEAST_BATCH:
        return f"batch norm over {spec.batch} rows has no mean gain"
    if not all(math.isfinite(v) and v >= 0 for v in (spec.weight_variance, spec.bias_variance)):
        return "its weights are not finite"
    return ""


def _cross(spec: LayerSpec, before: _Crossed | None) -> _Crossed | str:
    """Follow the signal through one layer, or say why that can't be done."""
    phi = find_activation(spec.activation, spec.activation_parameters)
    refusal = _refusal(spec, phi)
    if refusal or phi is None:
        return refusal
    if before is not None:
        signal = before.signal
    elif spec.input_second_moment is not None and math.isfinite(spec.input_second_moment):
        signal = _Signal(spec.input_second_moment, 0.0, spec.input_second_moment)
    else:
        return "what enters it was not measured"
    length = _length(spec, signal, follows=before is not None)
    if length is None:
        return (
            "batch norm after a layer without one: it takes the samples' correlation, which was not measured"
        )
    if not math.isfinite(length) or (spec.norm != "none" and length <= 0):
        return "the signal's length leaves the range of numbers here"
    return _crossed(spec, phi, signal, length)


def _length(spec: LayerSpec, signal: _Signal, *, follows: bool) -> float | None:
    """E[z^2], or the variance over the batch under a batch norm (None = not known)."""
    if spec.norm == "batch":
        return None if signal.batch_variance is None else spec.weight_variance * signal.batch_variance
    if spec.bias_centres and follows:  # b = -W m: z = W (h - m), and Var b is the centring itself
        return spec.weight_variance * max(signal.second - signal.mean**2, 0.0)
    return spec.weight_variance * signal.second + spec.bias_variance


def _crossed(spec: LayerSpec, phi: Activation, signal: _Signal, length: float) -> _Crossed:
    q = length if spec.norm == "none" else 1.0
    moments: NormMoments | None = None
    if spec.norm == "batch":
        parameters = tuple(sorted(spec.activation_parameters.items()))
        moments = moments_by_name(spec.activation, parameters, spec.batch)
    if moments is None:
        activation, norm, variance = (
            derivative_moment(phi, q),
            1.0 if spec.norm == "none" else 1 / length,
            None,
        )
    else:
        activation, norm, variance = moments.derivative, moments.inverse / length, moments.variance
    second, centre = second_moment(phi, q), mean(phi, q)
    if spec.activation == "identity" and moments is None and signal.batch_variance is not None:
        scale = norm * spec.weight_variance  # a linear layer keeps what is known of the samples
        variance = scale * signal.batch_variance
    if spec.skip == "identity":
        second += signal.second + 2 * centre * signal.mean
        centre += signal.mean
        known = variance is not None and signal.batch_variance is not None
        variance = (variance or 0.0) + (signal.batch_variance or 0.0) if known else None
    return _Crossed(spec, length, activation, norm, phi.bound, _Signal(second, centre, variance))


def _prediction(before: _Crossed, here: _Crossed) -> LayerPrediction:
    spec = here.spec
    widths = spec.fan_out / spec.fan_in
    skip = 1.0
    if spec.skip == "identity":
        # the gradient of h runs past this layer (1) and through it (branch): the sum over the branch alone
        branch = spec.weight_variance * widths * here.activation * here.norm
        if branch <= 0:
            return LayerPrediction(
                name=spec.name, after=before.spec.name, reason="its branch passes nothing; only the skip does"
            )
        skip = (1 + branch) / branch
    raw = before.activation * before.norm * spec.weight_variance * widths * skip
    free = raw * before.length / here.length if here.length > 0 else None
    normed = before.spec.norm != "none" or spec.norm != "none"
    return LayerPrediction(
        name=spec.name,
        after=before.spec.name,
        chi=free if normed else raw,
        chi_raw=raw,
        chi_scale_free=free,
        activation_factor=math.sqrt(before.activation),
        weight_factor=math.sqrt(spec.weight_variance),
        norm_factor=math.sqrt(before.norm),
        skip_factor=math.sqrt(skip),
        length=here.length,
        bound=before.bound,
    )
