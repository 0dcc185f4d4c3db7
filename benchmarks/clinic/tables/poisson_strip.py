"""-u'' = f on a strip, u = 0 at both ends: a physics-informed net that meets the ends by its form."""

import math

import torch
from torch import nn

WAVES = 3


def f(x):
    return (WAVES * math.pi) ** 2 * torch.sin(WAVES * math.pi * x) + 20.0


class Strip(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1))

    def forward(self, x):
        return x * (1 - x) * self.net(6 * x - 3)


def physics_loss(model, points):
    x = torch.rand(points, 1, requires_grad=True)
    du = torch.autograd.grad(model(x).sum(), x, create_graph=True)[0]
    ddu = torch.autograd.grad(du.sum(), x, create_graph=True)[0]
    return (ddu + f(x)).square().mean()


model = Strip()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.5 ** (k / 120))
losses = []
for step in range(400):
    loss = physics_loss(model, 48)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    decay.step()
    losses.append(loss.item())
    if step % 100 == 0:
        print(step, loss.item())
print("final loss:", sum(losses[-10:]) / 10)
