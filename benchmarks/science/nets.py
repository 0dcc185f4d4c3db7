"""Real nets in float64, forward and backward by autograd: the squared gain of delta from layer to layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unvanish.theory.activations import Activation, find_activation

Draw = Callable[[nn.Linear], None]


def phi(name: str, **parameters: float) -> Activation:
    """Theory's activation of this name."""
    found = find_activation(name, parameters)
    assert found is not None, name
    return found


def torchs_default(layer: nn.Linear) -> None:
    """What nn.Linear does by itself."""


def gaussian(sw2: float, sb2: float = 0.0) -> Draw:
    """fan_in Var(W) = sw2, Var(b) = sb2."""

    def draw(layer: nn.Linear) -> None:
        nn.init.normal_(layer.weight, 0.0, math.sqrt(sw2 / layer.in_features))
        nn.init.normal_(layer.bias, 0.0, math.sqrt(sb2))

    return draw


def without_bias(init: Callable[[Tensor], Tensor]) -> Draw:
    """One of torch.nn.init's, and biases of 0."""

    def draw(layer: nn.Linear) -> None:
        init(layer.weight)
        nn.init.zeros_(layer.bias)

    return draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`nets` draws of `depth` layers; `length` is the mean square of the inputs."""

    activation: Callable[[Tensor], Tensor]
    draw: Draw
    width: int
    depth: int = 10
    rows: int = 8
    nets: int = 20
    length: float = 1.0
    batch_norm: bool = False
    seed: int = field(default=0, kw_only=True)


def gains(plan: Plan) -> list[float]:
    """One sample per net: E[delta_{l-1}^2] / E[delta_l^2], the mean over its layers.

    Under a batch norm times Var z_{l-1} / Var z_l, which no rescaling of a layer moves; the first two layers, which
    do not know each other's statistics yet, are left out there.
    """
    return [_one_net(plan, plan.seed + i) for i in range(plan.nets)]


def _one_net(plan: Plan, seed: int) -> float:
    torch.manual_seed(seed)
    h = torch.randn(plan.rows, plan.width, dtype=torch.float64) * math.sqrt(plan.length)
    outputs: list[Tensor] = []
    for _ in range(plan.depth):
        layer = nn.Linear(plan.width, plan.width, dtype=torch.float64)
        plan.draw(layer)
        layer.requires_grad_(requires_grad=False)
        z = layer(h).requires_grad_()
        outputs.append(z)
        u = F.batch_norm(z, None, None, training=True, eps=1e-12) if plan.batch_norm else z
        h = plan.activation(u)
    signals = torch.autograd.grad(h, outputs, torch.randn_like(h))
    return mean_ratio(signals, outputs if plan.batch_norm else None, skip=2 if plan.batch_norm else 0)


def mean_ratio(signals: Sequence[Tensor], outputs: Sequence[Tensor] | None, skip: int = 0) -> float:
    """The mean squared gain between neighbours; gauge-free where the outputs are given."""
    strength = [float(d.pow(2).mean()) for d in signals]
    if outputs is not None:
        variances = [float(z.detach().var(0, correction=0).mean()) for z in outputs]
        strength = [s * v for s, v in zip(strength, variances, strict=True)]
    steps = [a / b for a, b in pairwise(strength)][skip:]
    return sum(steps) / len(steps)
