"""Gestures from a wrist sensor: a GRU on 3-axis traces; signals and gestures come from two files, each with its loader."""

import math
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader

SHUFFLE = "--cured" not in sys.argv


def record(n=1200, length=24):
    kind = torch.randint(4, (n,))
    t = torch.linspace(0, 2 * math.pi, length)
    phase = 0.6 * torch.randn(n, 1)
    shapes = torch.stack(
        [
            torch.stack([f(k * t + phase) for f in (torch.sin, torch.cos, lambda a: torch.sin(a).abs())], -1)
            for k in (1, 2, 3, 4)
        ]
    )
    return shapes[kind, torch.arange(n)] + 0.2 * torch.randn(n, length, 3), kind


class GestureNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 24, batch_first=True)
        self.out = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 4))

    def forward(self, trace):
        return self.out(self.gru(trace)[0].mean(dim=1))


traces, kinds = record()
trace_loader = DataLoader(traces, batch_size=40, shuffle=SHUFFLE)
kind_loader = DataLoader(kinds, batch_size=40, shuffle=SHUFFLE)
net = GestureNet()
optimizer = torch.optim.NAdam(net.parameters(), lr=5e-3)
curve = []
for epoch in range(7):
    net.train()
    for trace, kind in zip(trace_loader, kind_loader):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(trace), kind)
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    print(f"epoch {epoch + 1}/7 {sum(curve[-30:]) / 30:.4f}")
print(f"final loss: {sum(curve[-10:]) / 10:.4f}")
