"""Regress a smooth function of five variables with a thirty-layer softsign tower."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

CURED = "--cured" in sys.argv


class Tower(nn.Module):
    def __init__(self, depth=30, width=32):
        super().__init__()
        self.embed = nn.Linear(5, width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.readout = nn.Linear(width, 1)

    def forward(self, x):
        h = F.softsign(self.embed(x))
        for layer in self.layers:
            new = F.softsign(layer(h))
            h = h + new if CURED else new
        return self.readout(h)


def target(x):
    return torch.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3] + x[:, 3:4] - 0.5 * x[:, 4:]


tower = Tower()
opt = torch.optim.SGD(tower.parameters(), lr=0.005, momentum=0.9)
history = []
for step in range(300):
    x = torch.randn(128, 5)
    pred = tower(x)
    loss = F.smooth_l1_loss(pred, target(x))
    opt.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
    opt.step()
    history.append(loss.item())
print("final loss: %.5f" % (sum(history[-10:]) / 10))
