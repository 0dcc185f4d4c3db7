"""Stripes by direction: a ConvNeXt-like mixer of depthwise convolutions whose branches start at a millionth."""

import math

import torch
from torch import nn


class Mix(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.spatial = nn.Conv2d(c, c, 5, padding=2, groups=c)
        self.norm = nn.GroupNorm(1, c)
        self.expand, self.reduce = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(2 * c, c, 1)
        self.gamma = nn.Parameter(1e-6 * torch.ones(c, 1, 1))

    def forward(self, x):
        y = self.reduce(nn.functional.gelu(self.expand(self.norm(self.spatial(x)))))
        return x + self.gamma * y


class ConvMixer(nn.Module):
    def __init__(self, c=16, depth=4):
        super().__init__()
        self.patch = nn.Conv2d(1, c, 2, stride=2)
        self.mix = nn.Sequential(*[Mix(c) for _ in range(depth)])
        self.head = nn.Linear(c, 4)

    def forward(self, x):
        return self.head(self.mix(self.patch(x)).abs().mean(dim=(2, 3)))


def stripes(n, size=12):
    label = torch.randint(0, 4, (n,))
    angle = label * math.pi / 4 + 0.1 * torch.randn(n)
    r = torch.arange(size).float()
    along = r[None, :, None] * torch.sin(angle)[:, None, None] + r[None, None, :] * torch.cos(angle)[:, None, None]
    x = torch.sin(1.3 * along + 6.3 * torch.rand(n, 1, 1)) + 0.3 * torch.randn(n, size, size)
    return x[:, None], label


model = ConvMixer()
opt = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
losses = []
for step in range(180):
    x, label = stripes(24)
    loss = nn.functional.cross_entropy(model(x), label)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
