"""Concentration from raw detector counts (hundreds per channel): linear calibration by gradient descent."""

import torch
from torch import nn

CHANNELS = 20
response = torch.rand(CHANNELS) + 0.5


def measure(count):
    concentration = torch.randn(count, 1)
    counts = 400 * concentration * response + 60 * torch.randn(count, CHANNELS)
    return counts, concentration


calibration = nn.Linear(CHANNELS, 1, bias=False)
nn.init.zeros_(calibration.weight)
optimizer = torch.optim.SGD(calibration.parameters(), lr=1e-8)
losses = []
for step in range(300):
    counts, concentration = measure(64)
    loss = nn.functional.mse_loss(calibration(counts), concentration)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
