"""The slow, obvious twin of theory: a real random net in float64, forward and backward by autograd."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch.nn import functional as F

from unvanish.schema.architecture import LayerSpec

PHI = {
    "identity": lambda z: z,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.01),
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "hardtanh": F.hardtanh,
}


def specs(
    widths: list[int], activation: str, sw2: float, sb2: float = 0.0, **options: object
) -> list[LayerSpec]:
    """Layers between these widths; the last one is a bare output layer."""
    made = [
        LayerSpec(
            name=f"layers.{i}",
            fan_in=fan_in,
            fan_out=fan_out,
            weight_variance=sw2,
            bias_variance=sb2,
            activation=activation,
            **options,  # type: ignore[arg-type]
        )
        for i, (fan_in, fan_out) in enumerate(pairwise(widths))
    ]
    made[-1] = replace(made[-1], activation="identity", norm="none", skip="none")
    made[0] = replace(made[0], input_second_moment=1.0, skip="none")
    return made


@dataclass(frozen=True, slots=True)
class Measured:
    """Per transition between neighbouring layers: gains of E[delta^2], raw and times Var z."""

    raw: list[float]
    scale_free: list[float]
    norm: list[float]


def measure(layers: list[LayerSpec], rows: int, seed: int = 0, *, orthogonal: bool = False) -> Measured:
    """One draw of the net, one batch of Gaussian inputs, one random cotangent at the end."""
    torch.manual_seed(seed)
    h = torch.randn(rows, layers[0].fan_in, dtype=torch.float64)
    outputs = []
    for spec in layers:
        weight = torch.randn(spec.fan_out, spec.fan_in, dtype=torch.float64)
        if orthogonal:
            torch.nn.init.orthogonal_(weight)
        else:
            weight /= math.sqrt(spec.fan_in)
        weight *= math.sqrt(spec.weight_variance)
        if spec.bias_centres:
            bias = -0.5 * weight.sum(1)  # the mean of a sigmoid is 1/2
        else:
            bias = torch.randn(spec.fan_out, dtype=torch.float64) * math.sqrt(spec.bias_variance)
        z = (h @ weight.T + bias).requires_grad_()
        z.retain_grad()
        outputs.append(z)
        u = z
        if spec.norm == "batch":
            u = F.batch_norm(z, None, None, training=True, eps=1e-12)
        elif spec.norm == "layer":
            u = F.layer_norm(z, z.shape[1:], eps=0.0)
        elif spec.norm == "rms":
            u = z / z.pow(2).mean(1, keepdim=True).sqrt()
        after = PHI[spec.activation](u)
        h = after + h if spec.skip == "identity" else after
    h.backward(torch.randn_like(h))
    deltas = [z.grad for z in outputs]
    squares = [float(d.pow(2).mean()) for d in deltas if d is not None]
    sums = [float(d.pow(2).sum()) for d in deltas if d is not None]
    batch = any(s.norm == "batch" for s in layers)
    variances = [
        float(z.detach().var(0, correction=0).mean() if batch else z.detach().pow(2).mean()) for z in outputs
    ]
    raw = [a / b for a, b in pairwise(squares)]
    return Measured(
        raw=raw,
        scale_free=[g * a / b for g, a, b in zip(raw, variances, variances[1:], strict=False)],
        norm=[a / b for a, b in pairwise(sums)],
    )


def geometric_mean(values: list[float]) -> float:
    """The exponential of the mean log."""
    return math.exp(sum(map(math.log, values)) / len(values))
