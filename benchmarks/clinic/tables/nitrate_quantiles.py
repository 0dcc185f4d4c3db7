"""Nitrate in wells, as log10 of the concentration in mol/l: three quantiles at once with the pinball loss."""

import sys

import torch
from torch import nn

LEVELS = torch.tensor([0.1, 0.5, 0.9])


def wells(n):
    x = torch.randn(n, 6)
    level = -4.0 + 0.9 * x[:, 0] - 0.6 * torch.relu(x[:, 1]) + 0.5 * torch.sin(2 * x[:, 2])
    spread = 0.1 + 0.1 * torch.sigmoid(x[:, 3])
    return x, level + spread * torch.randn(n)


def pinball(quantiles, y):
    e = y[:, None] - quantiles
    return torch.maximum(LEVELS * e, (LEVELS - 1) * e).mean()


class Quantiles(nn.Module):
    def __init__(self, sizes=(6, 32, 32)):
        super().__init__()
        blocks = []
        for a, b in zip(sizes, sizes[1:]):
            blocks += [nn.Linear(a, b), nn.SiLU()]
        self.body = nn.Sequential(*blocks)
        self.out = nn.Linear(sizes[-1], 3)

    def forward(self, x):
        q = self.out(self.body(x))
        return q if "--cured" in sys.argv else torch.relu(q)


x, y = wells(2000)
net = Quantiles()
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=300)
losses = []
for step in range(300):
    rows = torch.randint(len(x), (64,))
    loss = pinball(net(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
