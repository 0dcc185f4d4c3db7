"""Rows 15 and 16: how skips let a signal grow, and where the norm stands in a transformer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from science.row import Row, estimate
from unvanish.theory.residual import (
    POST_NORM_EXPONENT,
    PRE_NORM_EXPONENT,
    normalised_growth,
    residual_growth,
)

BLOCKS = 20


def growth(*, quick: bool) -> list[Row]:
    """Row 15: blocks h + a W2 relu(W1 h) with He's W1; E[h^2] at the end over that at the beginning."""
    width, nets = (150, 24) if quick else (500, 40)

    def as_it_is(h: Tensor) -> Tensor:
        return h

    def normed(h: Tensor) -> Tensor:
        return F.batch_norm(h, None, None, training=True, eps=1e-12)

    plain, centred = residual_growth(BLOCKS), normalised_growth(BLOCKS)
    stable = residual_growth(BLOCKS, branch_scale=BLOCKS**-0.5)
    cases: list[tuple[str, float, Callable[[Tensor], Tensor], float]] = [
        ("plain, He: 2^L", plain, as_it_is, 1.0),
        ("batch norm in the branch: 1 + L", centred, normed, 1.0),
        ("alpha = 0", residual_growth(BLOCKS, branch_scale=0.0), as_it_is, 0.0),
        ("alpha = 1/sqrt(L): (1 + 1/L)^L", stable, as_it_is, BLOCKS**-0.5),
    ]
    rows = []
    for name, predicted, norm, scale in cases:
        mean, error = estimate([_growth(width, norm, scale, seed=1500 + i) for i in range(nets)])
        rows.append(
            Row(number=15, claim="skips: growth of E[h^2] over 20 blocks", setting=name, predicted=predicted,
                measured=mean, standard_error=error or None, tolerance=0.0 if error else 1e-12,
                why="" if error else "rounding")
        )  # fmt: skip
    return rows


def _growth(width: int, norm: Callable[[Tensor], Tensor], scale: float, seed: int) -> float:
    torch.manual_seed(seed)
    h = torch.randn(64, width, dtype=torch.float64)
    before = float(h.pow(2).mean())
    for _ in range(BLOCKS):
        first = torch.randn(width, width, dtype=torch.float64) * math.sqrt(2 / width)
        second = torch.randn(width, width, dtype=torch.float64) * math.sqrt(1 / width)
        h = h + scale * torch.relu(norm(h) @ first.T) @ second.T
    return float(h.pow(2).mean()) / before


# --- transformers -----------------------------------------------------------------------------------------------

WIDTH, HEADS, ROWS, TOKENS = 64, 4, 16, 16
CLASSES = 200  # as many as tokens, nearly: with few, chance decides how large a label's mean gradient is


def norm_placement(*, quick: bool) -> list[Row]:
    """Row 16: the exponent of L in the gradient of the last feed-forward weights, at init."""
    depths, nets = ((6, 12, 24), 8) if quick else ((6, 12, 24, 48, 96), 16)
    rows = []
    for pre, limit in ((True, PRE_NORM_EXPONENT), (False, POST_NORM_EXPONENT)):
        slopes = [_exponent([_last_gradient(d, pre, seed) for d in depths], depths) for seed in range(nets)]
        mean, error = estimate(slopes)
        rows.append(
            Row(number=16, claim=f"{'pre' if pre else 'post'}-norm transformer: exponent of L in the last gradient",
                setting=f"L = {depths[0]} to {depths[-1]}", predicted=limit, measured=mean, standard_error=error,
                tolerance=0.1, why="the limit of deep nets" if pre else "the theorem is an upper bound")
        )  # fmt: skip
    return rows


def _exponent(values: list[float], depths: tuple[int, ...]) -> float:
    return statistics.linear_regression([math.log(d) for d in depths], [math.log(v) for v in values]).slope


def _last_gradient(depth: int, pre: bool, seed: int) -> float:
    """The Frobenius norm of the gradient in the last block's second feed-forward weight."""
    torch.manual_seed(1600 + seed)
    layers = [
        nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=pre,
                                   dtype=torch.float64)
        for _ in range(depth)
    ]  # fmt: skip
    net = nn.Sequential(*layers, nn.LayerNorm(WIDTH, dtype=torch.float64) if pre else nn.Identity(),
                        nn.Linear(WIDTH, CLASSES, dtype=torch.float64))  # fmt: skip
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.MultiheadAttention):
            nn.init.xavier_normal_(module.in_proj_weight)
    x = torch.randn(ROWS, TOKENS, WIDTH, dtype=torch.float64)
    target = torch.randint(CLASSES, (ROWS, TOKENS))
    out = net(x)
    weight = layers[-1].linear2.weight
    (gradient,) = torch.autograd.grad(F.cross_entropy(out.flatten(0, 1), target.flatten()), [weight])
    return float(gradient.norm())
