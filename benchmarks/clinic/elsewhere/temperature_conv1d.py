"""Forecast the next reading of a slow oscillation around 8 degrees from the last sixteen, with a 1-d convolutional net."""

import math
import sys

import torch
from torch import nn

WINDOW = 16


def windows(count):
    phase = torch.rand(count, 1) * 2 * math.pi
    period = 10 + 10 * torch.rand(count, 1)
    time = torch.arange(WINDOW + 1)
    series = 8 + 4 * torch.sin(2 * math.pi * time / period + phase)
    return series[:, None, :-1], series[:, -1:]


layers = [
    nn.Conv1d(1, 12, 5, padding=2),
    nn.ReLU(),
    nn.Conv1d(12, 12, 5, stride=2),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(12 * 6, 1),
]
if "--cured" not in sys.argv:
    layers.append(nn.Tanh())
forecaster = nn.Sequential(*layers)
optimizer = torch.optim.NAdam(forecaster.parameters(), lr=2e-3)
criterion = nn.MSELoss()

tail = []
for step in range(250):
    past, following = windows(64)
    loss = criterion(forecaster((past - 8) / 4), following)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    tail.append(loss.item())
print("final loss:", sum(tail[-10:]) / 10)
