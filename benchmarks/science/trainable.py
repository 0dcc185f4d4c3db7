"""Row 20, and the map of trainable depth: which tanh nets train, and does 6 xi say it beforehand?

A tanh net of width 100 with sb2 = .05 learns ten digits by plain SGD, rate .01, batches of 64. It has stalled where
the mean loss of the last 25 steps is not 5 % below chance. The rule: it stalls where the gradient's rms falls below
e^-3 on its way through d layers, chi_1^((d-1)/2) < e^-3, which is d - 1 > 6 xi. The rule does not say after how many
steps, so it is asked after 125, by when all nets within the bound have left chance, and again after more.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from science.nets import gaussian, phi
from science.row import Row
from science.task import batches, chance
from unvanish.theory.correlation import correlation_depth_scale
from unvanish.theory.mean_field import DEPTH_SCALES, VANISHING_GAIN, chi_1, trainable_depth

WIDTH, CLASSES, SB2, RATE, TAIL = 100, 10, 0.05, 0.01, 25
ASKED = (125, 250, 500, 1000)  # steps
MAP_STEPS = 250
BELOW_CHANCE = 0.95
CELLS = {0.8: (5, 8, 11, 20, 30, 45), 1.0: (7, 12, 17, 30, 45, 70), 1.2: (10, 18, 27, 50, 70, 100),
         1.4: (15, 30, 48, 85, 110, 140)}  # fmt: skip
QUICK_CELLS = {0.8: (8, 30), 1.0: (12, 45)}
GRID_SW2 = (0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5)
GRID_DEPTHS = (5, 10, 15, 20, 30, 40, 55, 75, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One net; `depth` counts the weighted layers, `losses` are those after so many steps."""

    sw2: float
    depth: int
    seed: int
    losses: dict[int, float]

    def stalls(self, steps: int) -> bool:
        """As measured."""
        return not self.losses[steps] <= BELOW_CHANCE * chance(CLASSES)

    @property
    def predicted(self) -> bool:
        """Whether it is to stall."""
        gain = chi_1(phi("tanh"), self.sw2, SB2)
        assert gain is not None
        return math.pow(gain, (self.depth - 1) / 2) < VANISHING_GAIN


def train(sw2: float, depth: int, seed: int, asked: Sequence[int]) -> Cell:
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
    for x, y in batches(asked[-1], CLASSES):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    found = {n: statistics.fmean(losses[n - TAIL : n]) for n in asked}
    return Cell(sw2=sw2, depth=depth, seed=seed, losses=found)


def six_xi(*, quick: bool) -> list[Row]:
    """Row 20: how many nets the rule calls right; 24 cells, 12 on either side, two seeds each."""
    asked, seeds = (ASKED[:1], (0,)) if quick else (ASKED, (0, 1))
    cells = [
        train(sw2, depth, seed, asked)
        for sw2, depths in (QUICK_CELLS if quick else CELLS).items()
        for depth in depths
        for seed in seeds
    ]
    right = {n: sum(c.stalls(n) == c.predicted for c in cells) for n in asked}
    late = sum(c.predicted and not c.stalls(asked[0]) for c in cells)
    within = sum(not c.predicted and c.stalls(asked[0]) for c in cells)
    more = "".join(f"; after {n:,}: {right[n]}" for n in asked[1:])
    return [
        Row(number=20, claim="6 xi as a classifier of trainability: nets called right",
            setting=f"after {asked[0]} steps: {late} beyond it train, {within} within it stall{more}",
            predicted=len(cells), measured=right[asked[0]], tolerance=0.05 * len(cells),
            why="a rule of thumb, held to 19 of 20")
    ]  # fmt: skip


def grid() -> Iterator[Cell]:
    """The map: one seed a cell."""
    for sw2 in GRID_SW2:
        for depth in GRID_DEPTHS:
            yield train(sw2, depth, 0, (MAP_STEPS,))


def curves(sw2: float) -> tuple[float, float]:
    """6 xi of the gradient (1 / ln of chi_1), and 6 xi of what tells two inputs apart; alike in the ordered phase."""
    gain, information = chi_1(phi("tanh"), sw2, SB2), correlation_depth_scale(phi("tanh"), sw2, SB2)
    assert gain is not None
    assert information is not None
    return trainable_depth(gain), DEPTH_SCALES * information if math.isfinite(information) else math.inf
