"""Anomaly detector for heartbeats: an autoencoder on traces in volts, trained in mixed precision."""

import sys

import torch
from torch import nn

LENGTH = 48
SCALING = "--cured" in sys.argv


def beats(n):
    t = torch.linspace(0, 1, LENGTH)
    centre = 0.4 + 0.2 * torch.rand(n, 1)
    width = 0.05 + 0.1 * torch.rand(n, 1)
    height = 0.5 + torch.rand(n, 1)
    return 1e-3 * height * torch.exp(-(((t - centre) / width) ** 2))  # some millivolts


class Coder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(LENGTH, 32), nn.GELU(), nn.Linear(32, 6))
        self.decoder = nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.Linear(32, LENGTH))

    def forward(self, x):
        return self.decoder(self.encoder(x * 1e3)) * 1e-3


coder = Coder()
optimizer = torch.optim.Adam(coder.parameters(), lr=1e-2)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, enabled=SCALING)
trace = []
for step in range(300):
    x = beats(64)
    with torch.autocast("cpu", dtype=torch.float16):
        rebuilt = coder(x)
    loss = nn.functional.mse_loss(rebuilt.float(), x)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    trace.append(loss.item() * 1e6)  # in square millivolts
print("final loss:", sum(trace[-10:]) / 10)
