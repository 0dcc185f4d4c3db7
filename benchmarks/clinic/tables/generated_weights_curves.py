"""A hypernetwork: from a few coefficients it writes the weights of a small net that draws the curve."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

WIDTHS = [1, 24, 24, 24, 24, 1]
SHAPES = list(zip(WIDTHS[:-1], WIDTHS[1:]))


class Hyper(nn.Module):
    def __init__(self, context=3, width=48):
        super().__init__()
        self.trunk = nn.Linear(context, width)
        self.writer = nn.Linear(width, sum(a * b + b for a, b in SHAPES))
        for layer in (self.trunk, self.writer):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        if "--cured" in sys.argv:
            with torch.no_grad():
                self.writer.weight.mul_(0.1)

    def forward(self, context, x):
        flat = self.writer(F.relu(self.trunk(context)))
        at = 0
        for i, (a, b) in enumerate(SHAPES):
            w = flat[:, at : at + a * b].view(-1, a, b)
            bias = flat[:, at + a * b : at + a * b + b].unsqueeze(1)
            at += a * b + b
            x = torch.baddbmm(bias, x, w)
            if i < len(SHAPES) - 1:
                x = F.relu(x)
        return x


hyper = Hyper()
optimizer = torch.optim.Adam(hyper.parameters(), lr=2e-3)
losses = []
for step in range(300):
    c = torch.randn(32, 3)
    x = torch.rand(32, 20, 1) * 2 - 1
    y = c[:, :1, None] * x.abs() + c[:, 1:2, None] * x + 0.5 * c[:, 2:, None]
    loss = F.mse_loss(hyper(c, x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
