"""Rows 12 to 14: how far one net lies from the mean, and the spectra of Jacobians."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from science.nets import phi
from science.row import Row, estimate
from unvanish.theory.finite_width import log_gain_variance
from unvanish.theory.spectrum import mean_singular_value, spectrum_variance

LAYERS = 10


def log_norms(*, quick: bool) -> list[Row]:
    """Row 12."""
    width, depth, nets = (80, 20, 600) if quick else (200, 50, 1500)
    torch.manual_seed(12)
    logs = []
    for _ in range(nets):
        h = torch.randn(width, dtype=torch.float64)
        h /= h.norm()
        for _ in range(depth):
            h = torch.relu(torch.randn(width, width, dtype=torch.float64) @ h) * math.sqrt(2 / width)
        logs.append(2 * math.log(float(h.norm())))
    centred = torch.tensor(logs, dtype=torch.float64)
    centred = (centred - centred.mean()) ** 2
    mean, error = estimate((centred * nets / (nets - 1)).tolist())
    predicted = log_gain_variance([width] * depth)
    return [
        Row(number=12, claim="log of a He ReLU net's squared norm: its variance, nats^2",
            setting=f"n = {width}, L = {depth}", predicted=predicted, measured=mean, standard_error=error,
            tolerance=0.05 * predicted, why="5 L / n is the leading order in 1 / n")
    ]  # fmt: skip


def spectra(*, quick: bool) -> list[Row]:
    """Row 13: eigenvalues of J J^T over their mean, from the layers' Jacobians along a real forward pass."""
    width, nets = (200, 8) if quick else (800, 10)
    rows = []
    for name in ("identity", "relu"):
        for orthogonal in (True, False):
            predicted = spectrum_variance(phi(name), 1.0, LAYERS, orthogonal=orthogonal)
            samples = [_spectrum(name, width, orthogonal, seed=1300 + i) for i in range(nets)]
            mean, error = estimate(samples)
            words = (
                f"{'orthogonal' if orthogonal else 'Gaussian'}, {'linear' if name == 'identity' else 'ReLU'}"
            )
            rows.append(
                Row(number=13, claim="spectrum of J J^T, L = 10: variance over squared mean", setting=words,
                    predicted=predicted, measured=mean, standard_error=error if predicted else None,
                    tolerance=0.0 if predicted else 1e-9, why="" if predicted else "rounding")
            )  # fmt: skip
    return rows


def _spectrum(name: str, width: int, orthogonal: bool, seed: int) -> float:
    """n tr (J J^T)^2 / (tr J J^T)^2 - 1, with J = D W ... D W along a real forward pass."""
    torch.manual_seed(seed)
    h = torch.randn(width, dtype=torch.float64)
    jacobian = torch.eye(width, dtype=torch.float64)
    for _ in range(LAYERS):
        w = torch.randn(width, width, dtype=torch.float64) / math.sqrt(width)
        if orthogonal:
            w = nn.init.orthogonal_(w)
        z = w @ h
        slope = torch.ones_like(z) if name == "identity" else (z > 0).double()
        h = z * slope
        h = h / h.pow(2).mean().sqrt()  # a ReLU's scale does not matter
        jacobian = slope[:, None] * (w @ jacobian)
    product = jacobian @ jacobian.T
    return float(width * product.pow(2).sum() / product.trace() ** 2) - 1


def glorot(*, quick: bool) -> list[Row]:
    """Row 14: a layer of tanh near 0, its Jacobian by autograd."""
    width = 150 if quick else 400
    rows = []
    for name, sw2 in (("standard", 1 / 3), ("normalised", 1.0)):
        samples = [_singular(width, name, seed=1400 + i) for i in range(5)]
        mean, error = estimate(samples)
        predicted = mean_singular_value(sw2)
        rows.append(
            Row(number=14, claim="mean singular value of a layer's Jacobian", setting=f"{name} init",
                predicted=predicted, measured=mean, standard_error=error, tolerance=predicted / width,
                why="the quarter circle is of infinite width")
        )  # fmt: skip
    return rows


def _singular(width: int, name: str, seed: int) -> float:
    torch.manual_seed(seed)
    layer = nn.Linear(width, width, dtype=torch.float64)
    if name == "normalised":
        nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)

    def step(h: Tensor) -> Tensor:
        out = layer(torch.tanh(h))
        assert isinstance(out, Tensor)
        return out

    jacobian = torch.autograd.functional.jacobian(step, 1e-3 * torch.randn(width, dtype=torch.float64))
    return float(torch.linalg.svdvals(jacobian).mean())
