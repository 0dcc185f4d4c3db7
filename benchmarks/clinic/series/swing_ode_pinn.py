"""Physics-informed net for u' = -2u + 4 sin(5t), u(0) = 1 on [0, 2]."""

import sys

import torch
from torch import nn

activation = nn.Tanh if "--cured" in sys.argv else nn.Sigmoid


def build(width=24, depth=8):
    layers = [nn.Linear(1, width), activation()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def residual(u, t):
    value = u(t)
    (slope,) = torch.autograd.grad(value.sum(), t, create_graph=True)
    return slope + 2 * value - 4 * torch.sin(5 * t)


u = build()
optimizer = torch.optim.Adam(u.parameters(), lr=2e-3)
losses = []
for iteration in range(400):
    t = (2 * torch.rand(48, 1)).requires_grad_()
    ode = residual(u, t).pow(2).mean()
    start = (u(torch.zeros(1, 1)) - 1).pow(2).mean()
    loss = ode + 5 * start
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
