"""Sound level (dB full scale) a moment ahead from short recordings of a machine hall: a small temporal conv net."""

import sys

import torch
from torch import nn

LR = 1e-3 if "--cured" in sys.argv else 3e-2


def recordings(n, length=24):
    loudness = torch.rand(n, 1) * 2
    t = torch.arange(length) / length
    wave = loudness * torch.sin(2 * torch.pi * (t * (2 + 3 * torch.rand(n, 1)) + torch.rand(n, 1)))
    wave = wave + 0.1 * torch.randn(n, length)
    level = -60 + 6 * loudness
    return wave[:, None], level


class TCN(nn.Sequential):
    def __init__(self, channels=12):
        super().__init__(
            nn.Conv1d(1, channels, 5, dilation=1), nn.ReLU(),
            nn.Conv1d(channels, channels, 5, dilation=2), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(),
            nn.Linear(channels, channels), nn.ReLU(),
            nn.Linear(channels, 1),
        )  # fmt: skip


model = TCN()
optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
losses = []
for step in range(400):
    wave, level = recordings(32)
    loss = (model(wave) - level).square().mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 20.0)
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
