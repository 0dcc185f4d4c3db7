"""Calibrating a detector: 48 channel gains, all nominally one, behind a known optics model kept in half memory."""

import sys

import torch
from torch import nn

PRECISION = torch.float32 if "--cured" in sys.argv else torch.bfloat16
CHANNELS = 48


class Gains(nn.Module):
    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.ones(CHANNELS))

    def forward(self, light):
        return light * self.value


class Instrument(nn.Module):
    def __init__(self, optics):
        super().__init__()
        self.gains = Gains()
        self.optics = optics.requires_grad_(False)

    def forward(self, light):
        return self.optics(self.gains(light))


optics = nn.Sequential(nn.Linear(CHANNELS, 64), nn.Softplus(), nn.Linear(64, 32))
for layer in (optics[0], optics[2]):
    nn.init.orthogonal_(layer.weight, gain=2.0)

light = torch.randn(2000, CHANNELS)
true_gain = 1 + 0.15 * torch.randn(CHANNELS)
with torch.no_grad():
    reading = optics(light * true_gain)

instrument = Instrument(optics).to(PRECISION)
light, reading = light.to(PRECISION), reading.to(PRECISION)
optimizer = torch.optim.Adam([p for p in instrument.parameters() if p.requires_grad], lr=1e-3)
losses = []
for epoch in range(9):
    for rows in torch.randperm(len(light)).split(50):
        loss = nn.functional.mse_loss(instrument(light[rows]), reading[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch}: {losses[-1]:.4f}")
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
