"""Row 20, and the map of trainable depth: which tanh nets train, and does 6 xi say it beforehand?

A tanh net of width 100 with sb2 = .05 learns ten digits by plain SGD, rate .01, batches of 64, 1,000 steps. It stalls where
the mean loss of the last 50 steps is not 5 % below chance. The rule: it stalls where the gradient's rms falls below
e^-3 on its way through d layers, chi_1^((d-1)/2) < e^-3, which is d - 1 > 6 xi.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from science.nets import gaussian, phi
from science.row import Row
from science.task import batches, chance
from unvanish.theory.correlation import correlation_depth_scale
from unvanish.theory.mean_field import DEPTH_SCALES, VANISHING_GAIN, chi_1, trainable_depth

WIDTH, CLASSES, SB2, RATE, STEPS, TAIL = 100, 10, 0.05, 0.01, 1000, 50
BELOW_CHANCE = 0.95
CELLS = {0.8: (5, 8, 11, 20, 30, 45), 1.0: (7, 12, 17, 30, 45, 70), 1.2: (10, 18, 27, 50, 70, 100),
         1.4: (15, 30, 48, 85, 110, 140)}  # fmt: skip
QUICK_CELLS = {0.8: (8, 30), 1.0: (12, 45)}
GRID_SW2 = (0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5)
GRID_DEPTHS = (5, 10, 15, 20, 30, 40, 55, 75, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One net; `depth` counts the weighted layers."""

    sw2: float
    depth: int
    seed: int
    loss: float

    @property
    def stalls(self) -> bool:
        """As measured."""
        return not self.loss <= BELOW_CHANCE * chance(CLASSES)

    @property
    def predicted(self) -> bool:
        """Whether it is to stall."""
        gain = chi_1(phi("tanh"), self.sw2, SB2)
        assert gain is not None
        return gain ** ((self.depth - 1) / 2) < VANISHING_GAIN


def train(sw2: float, depth: int, seed: int, steps: int = STEPS) -> Cell:
    """One training from scratch."""
    torch.manual_seed(seed)
    draw = gaussian(sw2, SB2)
    layers: list[nn.Module] = []
    for i in range(depth):
        layer = nn.Linear(64 if i == 0 else WIDTH, CLASSES if i == depth - 1 else WIDTH)
        draw(layer)
        layers += [layer, nn.Tanh()]
    net = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    losses = []
    for x, y in batches(steps, CLASSES):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return Cell(sw2=sw2, depth=depth, seed=seed, loss=statistics.fmean(losses[-TAIL:]))


def classified(*, quick: bool) -> Iterator[Cell]:
    """24 cells, 12 on either side of the rule, two seeds each; a few of them with one seed."""
    for sw2, depths in (QUICK_CELLS if quick else CELLS).items():
        for depth in depths:
            for seed in (0,) if quick else (0, 1):
                yield train(sw2, depth, seed)


def six_xi(*, quick: bool) -> list[Row]:
    """Row 20: how many cells the rule calls right."""
    cells = list(classified(quick=quick))
    right = sum(c.stalls == c.predicted for c in cells)
    return [
        Row(number=20, claim="6 xi as a classifier of trainability: nets called right",
            setting=f"of {len(cells)}, {sum(c.predicted for c in cells)} of them to stall", predicted=len(cells),
            measured=right, tolerance=0.05 * len(cells), why="a rule of thumb: 19 of 20 is what it is held to")
    ]  # fmt: skip


def grid() -> Iterator[Cell]:
    """The map: one seed a cell."""
    for sw2 in GRID_SW2:
        for depth in GRID_DEPTHS:
            yield train(sw2, depth, 0)


def curves(sw2: float) -> tuple[float, float]:
    """6 xi of the gradient (1 / ln of chi_1), and 6 xi of what tells two inputs apart; alike in the ordered phase."""
    gain, information = chi_1(phi("tanh"), sw2, SB2), correlation_depth_scale(phi("tanh"), sw2, SB2)
    assert gain is not None
    assert information is not None
    return trainable_depth(gain), DEPTH_SCALES * information if math.isfinite(information) else math.inf
