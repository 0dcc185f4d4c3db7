"""Tell sines, squares, triangles and sawtooths apart with a one-dimensional convolutional net."""

import math
import sys

import torch
from torch import nn

LENGTH = 64
Unit = nn.ReLU if "--cured" in sys.argv else nn.Sigmoid


def waves(n):
    kind = torch.randint(0, 4, (n,))
    t = torch.arange(LENGTH) / LENGTH
    cycles = torch.randint(2, 5, (n, 1))
    phase = (cycles * t + torch.rand(n, 1)) % 1.0
    shapes = torch.stack([
        torch.sin(2 * math.pi * phase),
        torch.sign(phase - 0.5),
        4 * (phase - 0.5).abs() - 1,
        2 * phase - 1,
    ])
    x = shapes[kind, torch.arange(n)] + 0.05 * torch.randn(n, LENGTH)
    return x[:, None], kind


class WaveNetish(nn.Module):
    def __init__(self, width=16, depth=5):
        super().__init__()
        channels = [1] + [width] * depth
        self.trunk = nn.Sequential(*[
            layer
            for a, b in zip(channels, channels[1:])
            for layer in (nn.Conv1d(a, b, 5, padding=2), Unit())
        ])
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.classify = nn.Linear(width, 4)

    def forward(self, x):
        return self.classify(self.pool(self.trunk(x)).squeeze(-1))


net = WaveNetish()
opt = torch.optim.Adagrad(net.parameters(), lr=0.02)
log = []
for step in range(300):
    x, y = waves(32)
    loss = nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    log.append(loss.item())
print(f"final loss: {sum(log[-10:]) / 10:.4f}")
