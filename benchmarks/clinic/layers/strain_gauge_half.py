"""Strain along a beam from its surface signal: a conv1d net in half precision with float32 master weights."""

import sys

import torch
from torch import nn

DTYPE = torch.float32 if "--cured" in sys.argv else torch.float16
POINTS, MILLI = 64, 1e-3


def beams(n):
    signal = torch.randn(n, 1, POINTS).cumsum(-1)
    signal = (signal - signal.mean(-1, keepdim=True)) / signal.std(-1, keepdim=True)
    kernel = torch.tensor([[[-0.5, 0.0, 0.5]]])
    strain = nn.functional.conv1d(signal, kernel, padding=1).abs()
    return signal, MILLI * strain


def make():
    return nn.Sequential(
        nn.Conv1d(1, 16, 5, padding=2), nn.GELU(),
        nn.Conv1d(16, 16, 5, padding=2), nn.GELU(),
        nn.Conv1d(16, 16, 5, padding=2), nn.GELU(),
        nn.Conv1d(16, 1, 1),
    )


working = make().to(DTYPE)
master = [p.detach().float().clone().requires_grad_() for p in working.parameters()]
optimizer = torch.optim.Adam(master, lr=3e-3, eps=1e-12)

record = []
for step in range(200):
    signal, strain = beams(32)
    predicted = MILLI * working(signal.to(DTYPE))
    loss = nn.functional.mse_loss(predicted, strain.to(DTYPE))
    working.zero_grad()
    loss.backward()
    with torch.no_grad():
        for m, w in zip(master, working.parameters()):
            m.grad = w.grad.float()
        optimizer.step()
        for m, w in zip(master, working.parameters()):
            w.copy_(m)
    error = (predicted.float() - strain).pow(2).mean() / strain.var()
    record.append(error.item())
print("final loss:", sum(record[-10:]) / 10)
