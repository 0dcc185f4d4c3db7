"""Row 17: the slope that keeps inputs apart in a deep net, and a real net with it."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from science.nets import phi
from science.row import Row, estimate
from unvanish.theory.correlation import correlation_map
from unvanish.theory.tailored import chain, rescaled_resnet, tailored_slope

PUBLISHED = 0.6291800290346146  # Zhang et al. 2022, tests of their code: ResNet-101, w = .6, C(0) = .75
BLOCKS, WEIGHT, TARGET = (3, 4, 23, 3), 0.6, 0.75
DEPTH, END = 50, 0.9


def slopes(*, quick: bool) -> list[Row]:
    """The published slope; the closed form beside quadrature in two dimensions; where a real chain ends."""
    resnet, closed = (
        tailored_slope(TARGET, rescaled_resnet(BLOCKS, weight=WEIGHT)),
        tailored_slope(END, chain(DEPTH)),
    )
    assert resnet is not None
    assert closed is not None
    width, nets = (300, 20) if quick else (1000, 40)
    mean, error = estimate([_end(closed, width, seed) for seed in range(nets)])
    net = f"L = {DEPTH}, slope {closed:.4f}"
    return [
        Row(number=17, claim="tailored leaky ReLU slope", setting="ResNet-101, w = .6, C = .75; published",
            predicted=PUBLISHED, measured=resnet, tolerance=2e-9, why="the published one is of finite precision"),
        Row(number=17, claim="correlation at the end of a tailored chain", setting=f"{net}; by quadrature",
            predicted=END, measured=_by_quadrature(closed), tolerance=1e-8, why="rounding"),
        Row(number=17, claim="the same of real nets", setting=f"{net}; width {width}", predicted=END, measured=mean,
            standard_error=error, tolerance=0.25 / math.sqrt(width),
            why="theory is of infinite width, and errors of c add up over 50 layers"),
    ]  # fmt: skip


def _by_quadrature(slope: float) -> float:
    """Where the chain ends, by the integrals in two dimensions instead of the closed form."""
    c, sw2 = 0.0, 2 / (1 + slope**2)
    for _ in range(DEPTH):
        c = correlation_map(phi("leaky_relu", negative_slope=slope), min(c, 1.0), 1.0, sw2, 0.0)
    return c


def _end(slope: float, width: int, seed: int) -> float:
    """Two orthogonal inputs, He init for this slope, the cosine between the outputs."""
    torch.manual_seed(1700 + seed)
    h, _ = torch.linalg.qr(torch.randn(width, 2, dtype=torch.float64))
    for _ in range(DEPTH):
        w = torch.randn(width, width, dtype=torch.float64) * math.sqrt(2 / (1 + slope**2) / width)
        h = F.leaky_relu(w @ h, slope)
    return float(F.cosine_similarity(h[:, 0], h[:, 1], dim=0))
