"""Conditional density: a Gaussian whose mean and width follow the input, fitted by negative log-likelihood."""

import math

import torch
from torch import nn


class Density(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU())
        self.mean = nn.Linear(32, 1)
        self.log_scale = nn.Linear(32, 1)

    def log_prob(self, x, y):
        h = self.trunk(x)
        log_scale = self.log_scale(h)
        z = (y - self.mean(h)) * torch.exp(-log_scale)
        return -0.5 * z.square() - log_scale - 0.5 * math.log(2 * math.pi)


density = Density()
optimizer = torch.optim.Adam(density.parameters(), lr=5e-3)
losses = []
for _ in range(400):
    x = 2 * torch.rand(128, 1) - 1
    y = 0.5 * x**2 - 0.3 * x + (0.02 + 0.02 * x.abs()) * torch.randn(128, 1)
    loss = -density.log_prob(x, y).mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(density.parameters(), 5.0)
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
