"""Unmix spectra: how much of each of five pigments is in a sample? A linear decoder and heavy-ball descent by hand."""

import sys

import torch

BANDS, PIGMENTS, SAMPLES = 60, 5, 400
bands = torch.linspace(0, 1, BANDS)
centres = torch.linspace(0.1, 0.9, PIGMENTS)
library = torch.exp(-((bands[None] - centres[:, None]) ** 2) / 0.03)
amounts = torch.rand(SAMPLES, PIGMENTS)
spectra = amounts @ library + 0.02 * torch.randn(SAMPLES, BANDS)
amounts = amounts - 0.5

LR = 0.01 if "--cured" in sys.argv else 0.3
BETA = 0.8

decoder = torch.nn.Linear(BANDS, PIGMENTS)
velocity = [torch.zeros_like(p) for p in decoder.parameters()]
losses = []
for epoch in range(20):
    for rows in torch.randperm(SAMPLES).chunk(10):
        loss = (decoder(spectra[rows]) - amounts[rows]).square().sum(1).mean() / PIGMENTS
        gradients = torch.autograd.grad(loss, list(decoder.parameters()))
        with torch.no_grad():
            for p, v, g in zip(decoder.parameters(), velocity, gradients):
                v.mul_(BETA).sub_(LR * g)
                p.add_(v)
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
