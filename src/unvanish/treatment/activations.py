"""The elementwise activations that treatments know: their names, how to build them, the gain they need."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import nn

from unvanish.errors import SurgeryError

LEAKY_SLOPE = 0.01

NAMES: dict[type[nn.Module], str] = {
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    nn.ELU: "elu",
    nn.SELU: "selu",
    nn.CELU: "celu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Softplus: "softplus",
    nn.Softsign: "softsign",
    nn.Hardtanh: "hardtanh",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "hardswish",
    nn.LogSigmoid: "logsigmoid",
    nn.Tanhshrink: "tanhshrink",
}
_IN_PLACE = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "celu", "hardtanh")
# what torch's functions call themselves, in-place forms included -> the activation's name
FUNCTIONS: dict[str, str] = {
    **{name: name for name in NAMES.values()},
    **{f"{name}_": name for name in _IN_PLACE},
    "log_sigmoid": "logsigmoid",
}

_PLAIN: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "mish": nn.Mish,
    "softsign": nn.Softsign,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "logsigmoid": nn.LogSigmoid,
    "tanhshrink": nn.Tanhshrink,
    "prelu": nn.PReLU,
}
BUILDABLE = ("leaky_relu", *_PLAIN)
LEARNED = ("prelu",)  # has a parameter of its own: a module, never a function


def name_of(module: nn.Module) -> str | None:
    """The activation's name, None for a module that is no elementwise activation."""
    return NAMES.get(type(module))


def class_name(name: str) -> str:
    """The class of torch.nn for an activation's name."""
    return next((cls.__name__ for cls, n in NAMES.items() if n == name), nn.ReLU.__name__)


def build(name: str, slope: float = LEAKY_SLOPE) -> nn.Module:
    """A fresh activation module; `slope` is the negative slope of leaky_relu and unused elsewhere."""
    return nn.LeakyReLU(slope) if name == "leaky_relu" else _PLAIN[name]()


def function(name: str, slope: float = LEAKY_SLOPE) -> Callable[..., torch.Tensor]:
    """The activation as a function of one tensor; "identity" is one, too.

    Raises:
        SurgeryError: it has a parameter of its own.
    """
    if name in LEARNED:
        raise SurgeryError(
            f"{name} has a weight, and a function in forward has no place for it", "use leaky_relu"
        )
    if name == "leaky_relu":
        return functools.partial(nn.functional.leaky_relu, negative_slope=slope)
    named: Callable[..., torch.Tensor] = _pass_on if name == "identity" else getattr(nn.functional, name)
    return named


def _pass_on(x: torch.Tensor) -> torch.Tensor:
    return x


def slope_of(module: nn.Module | None) -> float:
    """The negative slope of a LeakyReLU module, the default slope of anything else."""
    return float(module.negative_slope) if isinstance(module, nn.LeakyReLU) else LEAKY_SLOPE


def rectifier_gain(name: str, slope: float = LEAKY_SLOPE) -> float:
    """Standard deviation of sqrt(fan_in) W that keeps the signal's size through this rectifier.

    He et al. 2015: sqrt(2 / (1 + a^2)) for ReLU (a = 0) and LeakyReLU of slope a. GELU and SiLU are
    rectifiers at large |z| and take ReLU's value by custom. 1 for the identity.

    Raises:
        SurgeryError: He's argument does not hold for this activation (sigmoid, tanh, ...).
    """
    if name in ("identity", "prelu"):
        return 1.0 if name == "identity" else math.sqrt(2.0 / (1.0 + 0.25**2))
    if name == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + slope**2))
    if name in ("relu", "relu6", "gelu", "silu"):
        return math.sqrt(2.0)
    raise SurgeryError(
        f"He's init is derived for rectifiers, and this net has {name}",
        "swap the activation first (activation, kind relu), or use the scheme that fits",
    )
