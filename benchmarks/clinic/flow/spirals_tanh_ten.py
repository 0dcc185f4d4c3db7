"""Two interleaved spirals, a ten-layer tanh network with GPT-style normal initialisation."""

import math
import sys

import torch
from torch import nn


def spirals(n):
    label = torch.randint(0, 2, (n,))
    r = torch.rand(n) * 0.9 + 0.1
    angle = r * 3.5 + label * math.pi
    return torch.stack([r * angle.cos(), r * angle.sin()], 1) * 2 + 0.03 * torch.randn(n, 2), label


def init(module):
    if isinstance(module, nn.Linear):
        if "--cured" in sys.argv:
            nn.init.xavier_normal_(module.weight, gain=5 / 3)
        else:
            nn.init.normal_(module.weight, 0.0, 0.02)
        nn.init.zeros_(module.bias)


class TanhNet(nn.Module):
    def __init__(self, width=96, depth=10):
        super().__init__()
        self.inp = nn.Linear(2, width)
        self.blocks = nn.Sequential(
            *[nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth - 2)]
        )
        self.head = nn.Linear(width, 2)
        self.apply(init)

    def forward(self, x):
        return self.head(self.blocks(torch.tanh(self.inp(x))))


net = TanhNet()
opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
losses = []
for step in range(400):
    points, label = spirals(128)
    loss = nn.functional.cross_entropy(net(points), label)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
