"""Activation functions as theory needs them: function, derivative, kinks, and how steep they get.

Parameters bear torch's names: leaky_relu `negative_slope`, elu `alpha`, softplus `beta`, hardtanh `min_val`
and `max_val`. GELU is the exact one (Hendrycks and Gimpel 2016), SiLU is Elfwing et al. (2018), SELU
Klambauer et al. (2017), ELU Clevert et al. (2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SELU_ALPHA = 1.6732632423543772  # Klambauer et al. (2017), as torch has them
_SELU_SCALE = 1.0507009873554805
_erf = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """One activation phi. `bound` is the largest |phi'|; `kinks` are where phi' jumps.

    `turns` are the points around which phi changes over a distance of order one; quadrature looks closer.
    """

    name: str
    function: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    bound: float
    kinks: tuple[float, ...] = ()
    turns: tuple[float, ...] = (0.0,)


def find_activation(name: str, parameters: Mapping[str, float] | None = None) -> Activation | None:
    """The activation of that (lower-case) name; None when theory has no say on it or on its parameters."""
    made = _MAKERS.get(name)
    if made is None:
        return None
    make, defaults = made
    given = dict(parameters or {})
    if not given.keys() <= defaults.keys() or not all(math.isfinite(v) for v in given.values()):
        return None
    return make(**{**defaults, **given})


def _logistic(z: Array) -> Array:
    small = np.exp(-np.abs(z))  # never overflows
    return np.where(z >= 0, 1.0, small) / (1.0 + small)


def _normal_cdf(z: Array) -> Array:
    return 0.5 * (1.0 + np.asarray(_erf(z / math.sqrt(2.0)), dtype=np.float64))


def _normal_density(z: Array) -> Array:
    return np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _identity() -> Activation:
    return Activation(name="identity", function=lambda z: z, derivative=np.ones_like, bound=1.0)


def _sigmoid() -> Activation:
    def derivative(z: Array) -> Array:
        s = _logistic(z)
        return s * _logistic(-z)

    return Activation(name="sigmoid", function=_logistic, derivative=derivative, bound=0.25)


def _tanh() -> Activation:
    def derivative(z: Array) -> Array:
        return 4.0 * _logistic(2.0 * z) * _logistic(-2.0 * z)  # 1 - tanh^2 cancels far out, this does not

    return Activation(name="tanh", function=np.tanh, derivative=derivative, bound=1.0)


def _leaky_relu(negative_slope: float, name: str = "leaky_relu") -> Activation:
    return Activation(
        name=name,
        function=lambda z: np.where(z > 0, z, negative_slope * z),
        derivative=lambda z: np.where(z > 0, 1.0, negative_slope),
        bound=max(1.0, abs(negative_slope)),
        kinks=(0.0,),
    )


def _relu() -> Activation:
    return _leaky_relu(0.0, "relu")


def _elu(alpha: float, scale: float = 1.0, name: str = "elu") -> Activation:
    return Activation(
        name=name,
        function=lambda z: scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0.0))),
        derivative=lambda z: scale * np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0.0))),
        bound=scale * max(1.0, abs(alpha)),
        kinks=(0.0,),
    )


def _selu() -> Activation:
    return _elu(_SELU_ALPHA, _SELU_SCALE, "selu")


def _gelu() -> Activation:
    top = np.array([math.sqrt(2.0)])  # phi'' = (2 - z^2) density(z) is 0 there

    def derivative(z: Array) -> Array:
        return _normal_cdf(z) + z * _normal_density(z)

    return Activation(
        name="gelu",
        function=lambda z: z * _normal_cdf(z),
        derivative=derivative,
        bound=float(derivative(top)[0]),
    )


def _silu() -> Activation:
    top = np.array([2.3993572805154676])  # where z tanh(z/2) = 2, and so phi'' = 0

    def derivative(z: Array) -> Array:
        return _logistic(z) * (1.0 + z * _logistic(-z))

    return Activation(
        name="silu",
        function=lambda z: z * _logistic(z),
        derivative=derivative,
        bound=float(derivative(top)[0]),
    )


def _softplus(beta: float, threshold: float) -> Activation:
    # torch turns linear where beta z > threshold; at the default 20 that differs by 2e-9 and is left out
    del threshold
    return Activation(
        name="softplus",
        function=lambda z: np.logaddexp(0.0, beta * z) / beta,
        derivative=lambda z: _logistic(beta * z),
        bound=1.0,
    )


def _hardtanh(min_val: float, max_val: float) -> Activation:
    return Activation(
        name="hardtanh",
        function=lambda z: np.clip(z, min_val, max_val),
        derivative=lambda z: np.where((z > min_val) & (z < max_val), 1.0, 0.0),
        bound=1.0,
        kinks=(min_val, max_val),
        turns=(min_val, max_val),
    )


_MAKERS: dict[str, tuple[Callable[..., Activation], dict[str, float]]] = {
    "identity": (_identity, {}),
    "sigmoid": (_sigmoid, {}),
    "tanh": (_tanh, {}),
    "relu": (_relu, {}),
    "leaky_relu": (_leaky_relu, {"negative_slope": 0.01}),
    "elu": (_elu, {"alpha": 1.0}),
    "selu": (_selu, {}),
    "gelu": (_gelu, {}),
    "silu": (_silu, {}),
    "softplus": (_softplus, {"beta": 1.0, "threshold": 20.0}),
    "hardtanh": (_hardtanh, {"min_val": -1.0, "max_val": 1.0}),
}
ACTIVATIONS = tuple(_MAKERS)  # the names theory has a say on
