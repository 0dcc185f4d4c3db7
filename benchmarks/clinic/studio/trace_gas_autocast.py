"""Denoise absorption spectra of a trace gas (absorbances of some thousandths), mixed precision."""

import sys

import torch
from torch import nn

CHANNELS = 256
grid = torch.linspace(0, 1, CHANNELS)


def spectra(n):
    centre = torch.rand(n, 3, 1) * 0.8 + 0.1
    height = torch.rand(n, 3, 1) * 0.004
    clean = (height * torch.exp(-((grid - centre) ** 2) / 0.004)).sum(1)
    return clean + 0.0003 * torch.randn_like(clean), clean


class Denoiser(nn.Module):
    def __init__(self, width=96):
        super().__init__()
        self.gain = 250.0
        self.body = nn.Sequential(
            nn.Linear(CHANNELS, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, CHANNELS),
        )

    def forward(self, x):
        return self.body(x * self.gain) / self.gain


model = Denoiser()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
use_amp = "--cured" not in sys.argv
losses = []
for step in range(300):
    noisy, clean = spectra(64)
    with torch.autocast("cpu", dtype=torch.float16, enabled=use_amp):
        restored = model(noisy)
    loss = nn.functional.mse_loss(restored.float(), clean)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if step % 50 == 0:
        print(f"{step:4d} {loss.item():.3e}")
print(f"final loss: {sum(losses[-10:]) / 10:.4e}")
