"""Steady temperature along a heated rod: a physics-informed net with sensor readings and the heat equation."""

import math
import sys

import torch
from torch import nn

LENGTH = 5000.0  # millimetres
CONDUCTIVITY = 2.0


def exact(x):
    return torch.sin(2 * math.pi * x / LENGTH) + 0.5 * x / LENGTH


def source(x):
    return CONDUCTIVITY * (2 * math.pi / LENGTH) ** 2 * torch.sin(2 * math.pi * x / LENGTH)


class Rod(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.inlet = nn.Linear(1, width)
        self.middle = nn.Linear(width, width)
        self.outlet = nn.Linear(width, 1)

    def forward(self, x):
        if "--cured" in sys.argv:
            x = 2 * x / LENGTH - 1
        h = torch.tanh(self.inlet(x))
        h = torch.tanh(self.middle(h))
        return self.outlet(h)


def residual(net, x):
    x = x.requires_grad_(True)
    u = net(x)
    (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=True)
    return CONDUCTIVITY * ddu + source(x)


rod = Rod()
sensors = LENGTH * torch.linspace(0.03, 1, 40)[:, None]
readings = exact(sensors) + 0.01 * torch.randn(40, 1)
optimizer = torch.optim.Adam(rod.parameters(), lr=4e-3)
fits = []
for step in range(300):
    fit = (rod(sensors) - readings).square().mean()
    physics = residual(rod, LENGTH * torch.rand(48, 1)).square().mean()
    optimizer.zero_grad()
    (fit + physics).backward()
    optimizer.step()
    fits.append(fit.item())
print(f"final loss: {sum(fits[-10:]) / 10:.5f}")
