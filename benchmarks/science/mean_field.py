"""Rows 1 to 6: critical lines, torch's default init, tanh in order and chaos, ReLU with Xavier and He."""

from __future__ import annotations

import math

import torch
from torch import nn

from science.nets import Draw, Plan, gains, gaussian, phi, torchs_default, without_bias
from science.row import Row, estimate
from unvanish.theory.mean_field import chi, chi_1, critical_point, fixed_point

CALLS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}
CRITICAL = {0.01: 1.42421, 0.05: 1.76095, 0.1: 1.98607, 0.3: 2.50513}


def critical_lines(*, quick: bool) -> list[Row]:
    """Row 1. Measured: a dense sum over a Gaussian, with torch's own tanh and its derivative by autograd."""
    rows: list[Row] = []
    for sb2 in CRITICAL:
        point = critical_point(phi("tanh"), sb2)
        assert point is not None
        sw2, q = _slow_critical(sb2, cells=20_001 if quick else 200_001)
        for what, here, there in (("sw2", point.sw2, sw2), ("q*", point.q, q)):
            if what == "sw2" or sb2 == 0.05:
                rows.append(
                    Row(number=1, claim=f"tanh, critical {what}", setting=f"sb2 = {sb2}", predicted=here,
                        measured=there, tolerance=1e-6, why="a sum over a grid")
                )  # fmt: skip
    return rows


def _slow_critical(sb2: float, cells: int) -> tuple[float, float]:
    g = torch.linspace(-10, 10, cells, dtype=torch.float64)
    weight = torch.exp(-0.5 * g * g)
    weight /= weight.sum()

    def moments(q: float) -> tuple[float, float]:
        z = (math.sqrt(q) * g).requires_grad_()
        h = torch.tanh(z)
        (slope,) = torch.autograd.grad(h.sum(), z)
        return float((weight * h.detach() ** 2).sum()), float((weight * slope**2).sum())

    low, high = 1e-6, 50.0
    for _ in range(60):
        q = 0.5 * (low + high)
        second, slope = moments(q)
        low, high = (q, high) if q - second / slope < sb2 else (low, q)
    return 1 / slope, q


def default_variance(*, quick: bool) -> list[Row]:
    """Row 2."""
    torch.manual_seed(2)
    size = 200 if quick else 400
    samples = [
        float(nn.Linear(size, size, dtype=torch.float64).weight.detach().var()) * size for _ in range(30)
    ]
    mean, error = estimate(samples)
    return [
        Row(
            number=2,
            claim="nn.Linear's default: n Var W",
            predicted=1 / 3,
            measured=mean,
            standard_error=error,
        )
    ]


def default_gains(*, quick: bool) -> list[Row]:
    """Rows 3 and 4."""
    rows: list[Row] = []
    width = 300 if quick else 1000
    for name in ("sigmoid", "tanh", "relu"):
        sw2, sb2 = 1 / 3, 1 / (3 * width)
        q = fixed_point(phi(name), sw2, sb2)
        assert q is not None
        mean, error = _measured(name, torchs_default, width, (q - sb2) / sw2, seed=len(rows), quick=quick)
        rows.append(
            Row(number=3 if name == "sigmoid" else 4, claim=f"{name}, torch's default: squared gain per layer",
                predicted=chi(phi(name), q, sw2), measured=mean, standard_error=error)
        )  # fmt: skip
    return rows


def tanh_gains(*, quick: bool) -> list[Row]:
    """Row 5."""
    rows: list[Row] = []
    width, sb2 = 300 if quick else 1000, 0.05
    for sw2 in (1.0, 1.3, 1.76, 2.5, 4.0):
        q, gain = fixed_point(phi("tanh"), sw2, sb2), chi_1(phi("tanh"), sw2, sb2)
        assert q is not None
        assert gain is not None
        mean, error = _measured(
            "tanh", gaussian(sw2, sb2), width, (q - sb2) / sw2, seed=10 + len(rows), quick=quick
        )
        rows.append(
            Row(number=5, claim="tanh, sb2 = .05: squared gain per layer", setting=f"sw2 = {sw2}", predicted=gain,
                measured=mean, standard_error=error)
        )  # fmt: skip
    return rows


def relu_gains(*, quick: bool) -> list[Row]:
    """Row 6."""
    rows: list[Row] = []
    he = without_bias(lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"))
    for name, draw, gain in (("Xavier", without_bias(nn.init.xavier_normal_), 0.5), ("He", he, 1.0)):
        mean, error = _measured("relu", draw, 300 if quick else 1000, 1.0, seed=20 + len(rows), quick=quick)
        rows.append(
            Row(number=6, claim="ReLU: squared gain per layer", setting=name, predicted=gain, measured=mean,
                standard_error=error)
        )  # fmt: skip
    return rows


def _measured(
    name: str, draw: Draw, width: int, length: float, *, seed: int, quick: bool
) -> tuple[float, float]:
    plan = Plan(activation=CALLS[name], draw=draw, width=width, length=length, nets=20 if quick else 40,
                seed=1000 * seed)  # fmt: skip
    return estimate(gains(plan))
