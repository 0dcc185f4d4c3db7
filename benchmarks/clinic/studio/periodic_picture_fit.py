"""Fit a picture with a net of sines (coordinates in, brightness out)."""

import math
import sys

import torch
from torch import nn


class Sine(nn.Module):
    def __init__(self, n_in, n_out, omega=30.0, first=False):
        super().__init__()
        self.omega = omega
        self.linear = nn.Linear(n_in, n_out)
        if first:
            nn.init.uniform_(self.linear.weight, -1 / n_in, 1 / n_in)
        elif "--cured" in sys.argv:
            bound = math.sqrt(6 / n_in) / omega
            nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x):
        return torch.sin(self.omega * self.linear(x))


class PictureNet(nn.Module):
    def __init__(self, width=64, hidden=3):
        super().__init__()
        self.sines = nn.Sequential(
            Sine(2, width, first=True), *[Sine(width, width) for _ in range(hidden)]
        )
        self.brightness = nn.Linear(width, 1)

    def forward(self, xy):
        return self.brightness(self.sines(xy))


def picture(xy):
    x, y = xy[:, :1], xy[:, 1:]
    ring = torch.exp(-20 * ((x**2 + y**2).sqrt() - 0.6) ** 2)
    return ring + 0.5 * torch.sin(4 * x) * torch.cos(3 * y)


net = PictureNet()
opt = torch.optim.NAdam(net.parameters(), lr=5e-4)
losses = []
for step in range(300):
    xy = torch.rand(256, 2) * 2 - 1
    loss = ((net(xy) - picture(xy)) ** 2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
