"""A coordinate network with sine activations learns the height of a landscape from random survey points."""
import math
import sys

import torch
from torch import nn


class Sine(nn.Module):
    def __init__(self, fan_in, fan_out, omega=30.0, first=False):
        super().__init__()
        self.omega = omega
        self.linear = nn.Linear(fan_in, fan_out)
        bound = 1 / fan_in if first else math.sqrt(6 / fan_in)
        if "--cured" in sys.argv and not first:
            bound = bound / omega
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x):
        return torch.sin(self.omega * self.linear(x))


def height(p):
    x, y = p[:, :1], p[:, 1:]
    return torch.sin(4 * x) * torch.cos(3 * y) + 0.6 * torch.sin(5 * (x + y)) + 0.5 * torch.cos(7 * y)


field = nn.Sequential(
    Sine(2, 48, first=True),
    Sine(48, 48),
    Sine(48, 48),
    Sine(48, 48),
    nn.Linear(48, 1),
)
optimizer = torch.optim.Adam(field.parameters(), lr=1e-3)
steps, tail = 400, []
for step in range(steps):
    points = torch.rand(96, 2) * 2 - 1
    loss = (field(points) - height(points)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step >= steps - 10:
        tail.append(loss.detach())
print("final loss:", torch.stack(tail).mean().item())
