"""Density of the two moons with affine coupling layers."""

import math
import sys

import torch
from sklearn.datasets import make_moons
from torch import nn


def mlp(hidden=24):
    net = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2))
    if "--cured" not in sys.argv:
        for p in net.parameters():
            nn.init.normal_(p, std=1.0)
    return net


class Coupling(nn.Module):
    def __init__(self, flip):
        super().__init__()
        self.flip = flip
        self.net = mlp()

    def forward(self, x):
        a, b = x[:, :1], x[:, 1:]
        if self.flip:
            a, b = b, a
        log_scale, shift = self.net(a).chunk(2, dim=1)
        b = b * torch.exp(log_scale) + shift
        return torch.cat((b, a) if self.flip else (a, b), dim=1), log_scale.squeeze(1)


class Flow(nn.Module):
    def __init__(self, n=4):
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(i % 2 == 1) for i in range(n))

    def log_prob(self, x):
        total = 0.0
        for coupling in self.couplings:
            x, log_det = coupling(x)
            total = total + log_det
        return total - 0.5 * x.pow(2).sum(1) - math.log(2 * math.pi)


flow = Flow()
optimizer = torch.optim.AdamW(flow.parameters(), lr=5e-3)
losses = []
for step in range(240):
    points, _ = make_moons(128, noise=0.04)
    loss = -flow.log_prob(torch.tensor(points, dtype=torch.float32)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
