"""The loss of the best constant guess, taken from the loss itself, against twins that compute it from the targets."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from watching import watched


def chance(loss: Callable[[Tensor], Tensor], outputs: int = 4) -> float | None:
    torch.manual_seed(0)
    net = nn.Linear(6, outputs)
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    x = torch.randn(60, 6)

    def step() -> None:
        loss(net(x)).backward()
        optimizer.step()

    (trace,) = watched(step).model.traces
    return trace.chance


LABELS = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)
ENTROPY = -sum(p * math.log(p) for p in (0.5, 1 / 3, 1 / 6)) + 2 / (2 * 60)
TARGETS = (
    torch.randn(60, 4, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 2.0, 3.0, 4.0]) + 5
)
VARIANCE = float(TARGETS.double().var(dim=0).mean())
BITS = (torch.arange(60) % 4 == 0).float()[:, None]
BIT_ENTROPY = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))

MEDIAN = TARGETS.median(0).values
DEVIATION = float((TARGETS - MEDIAN).abs().mean() * 60 / 59)

KNOWN: dict[str, tuple[Callable[[Tensor], Tensor], int, float]] = {
    "cross-entropy": (lambda y: F.cross_entropy(y, LABELS), 4, ENTROPY),
    "a hundredth of it": (lambda y: 0.01 * F.cross_entropy(y, LABELS), 4, 0.01 * ENTROPY),
    "divided for accumulation": (lambda y: F.cross_entropy(y, LABELS) / 8, 4, ENTROPY / 8),
    "summed": (lambda y: F.cross_entropy(y, LABELS, reduction="sum"), 4, 60 * ENTROPY),
    "nll of log_softmax": (lambda y: F.nll_loss(y.log_softmax(1), LABELS), 4, ENTROPY),
    "with ignored labels": (
        lambda y: F.cross_entropy(y, torch.where(LABELS == 2, -100, LABELS)), 4,
        -sum(p * math.log(p) for p in (0.6, 0.4)) + 1 / 100,
    ),
    "squared error": (lambda y: F.mse_loss(y, TARGETS), 4, VARIANCE),
    "squared error, summed": (lambda y: F.mse_loss(y, TARGETS, reduction="sum"), 4, VARIANCE * 240),
    "weighted classes": (
        lambda y: F.cross_entropy(y, LABELS, weight=torch.tensor([1.0, 3.0, 0.0, 1.0])), 4,
        -sum(p * math.log(p) for p in (1 / 3, 2 / 3)) + 1 / (2 * 90),
    ),
    "squared error, not reduced": (lambda y: F.mse_loss(y, TARGETS, reduction="none").mean(), 4, VARIANCE),
    "squared error by hand": (lambda y: ((y - TARGETS) ** 2).mean(), 4, VARIANCE),
    "the other way round": (lambda y: (TARGETS - y).square().sum(1).mean(), 4, VARIANCE * 4),
    "a product with itself": (lambda y: torch.mul(*[y[:, 0] - TARGETS[:, 0]] * 2).mean() * 3, 1,
                              3 * float(TARGETS[:, 0].var())),
    "half of it, summed": (lambda y: 0.5 * (y.squeeze(-1) - TARGETS[:, 0]).pow(2).sum(), 1,
                           30 * float(TARGETS[:, 0].var())),
    "absolute error": (lambda y: F.l1_loss(y, TARGETS), 4, DEVIATION),
    "absolute error by hand": (lambda y: (y - TARGETS).abs().mean(), 4, DEVIATION),
    "smooth absolute error": (lambda y: F.smooth_l1_loss(y, TARGETS, beta=1e-9), 4, DEVIATION),
    "Huber's": (lambda y: F.huber_loss(y, TARGETS, delta=1e9), 4,
                float((TARGETS - MEDIAN).square().mean() / 2 * 60 / 59)),
    "a sum of two": (lambda y: F.cross_entropy(y, LABELS) + 0.5 * F.mse_loss(y, TARGETS), 4,
                     ENTROPY + VARIANCE / 2),
    "time steps": (lambda y: torch.stack([F.cross_entropy(y, LABELS) for _ in range(3)]).mean(), 4, ENTROPY),
    "binary, ones weigh more": (
        lambda y: F.binary_cross_entropy_with_logits(y, BITS, pos_weight=torch.tensor([3.0])), 1, math.log(2) * 1.5),
    "binary": (lambda y: F.binary_cross_entropy_with_logits(y, BITS), 1, BIT_ENTROPY),
    "binary after a sigmoid": (lambda y: F.binary_cross_entropy(torch.sigmoid(y), BITS), 1, BIT_ENTROPY),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_known(name: str) -> None:
    loss, outputs, expected = KNOWN[name]
    assert chance(loss, outputs) == pytest.approx(expected, rel=1e-5)


UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "label smoothing": lambda y: F.cross_entropy(y, LABELS, label_smoothing=0.1),
    "a penalty beside it": lambda y: F.cross_entropy(y, LABELS) + y.pow(2).mean(),
    "no target": lambda y: y.pow(2).mean(),
    "a number on top": lambda y: F.cross_entropy(y, LABELS) + 1,
    "masked": lambda y: (F.mse_loss(y, TARGETS, reduction="none") * BITS).mean(),
    "masked by hand": lambda y: ((y - TARGETS) ** 2 * BITS).mean(),
    "what is compared is made anew": lambda y: (y.softmax(1) - TARGETS).square().mean(),
    "targets that learn as well": lambda y: (y - y.flip(0)).square().mean(),
    "cubed": lambda y: ((y - TARGETS) ** 3).mean(),
    "a constant target": lambda y: F.mse_loss(y, torch.ones(60, 4)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_not_known(name: str) -> None:
    assert chance(UNKNOWN[name]) is None
