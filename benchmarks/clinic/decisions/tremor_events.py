"""Find rare tremors in a seismogram: fully convolutional 1-D detector, focal-style prior on the biases."""
import math
import sys

import torch
import torch.nn.functional as F
from torch import nn

PRIOR = 0.01
LENGTH = 96


def conv(a, b, k=5):
    return nn.Conv1d(a, b, k, padding=k // 2)


detector = nn.Sequential(
    conv(1, 12), nn.ReLU(),
    conv(12, 12), nn.ReLU(),
    conv(12, 12), nn.ReLU(),
    conv(12, 1, 1),
)


def start_from_prior(net):
    layers = [m for m in net if isinstance(m, nn.Conv1d)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    if "--cured" in sys.argv:
        layers = layers[-1:]
    for layer in layers:
        nn.init.constant_(layer.bias, -math.log((1 - PRIOR) / PRIOR))


def recordings(n):
    noise = 0.2 * torch.randn(n, 1, LENGTH)
    where = torch.randint(8, LENGTH - 16, (n,))
    t = torch.arange(LENGTH)[None]
    inside = ((t >= where[:, None]) & (t < where[:, None] + 10)).float()
    wave = inside * torch.sin((t - where[:, None]) * 1.6)
    return noise + 1.2 * wave[:, None], inside[:, None]


start_from_prior(detector)
optimizer = torch.optim.RMSprop(detector.parameters(), lr=2e-3)
running = []
for step in range(240):
    x, mask = recordings(16)
    optimizer.zero_grad()
    loss = F.binary_cross_entropy_with_logits(detector(x), mask)
    loss.backward()
    optimizer.step()
    running.append(loss.item())
    if (step + 1) % 60 == 0:
        print(f"{step + 1}: {sum(running[-20:]) / 20:.4f}")
print(f"final loss: {sum(running[-10:]) / 10:.6f}")
