"""Dolphin click types from short spectrogram strips: a long chain of one-dimensional convolutions."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

CLASSES, BANDS, FRAMES = 5, 6, 20


class ClickNet(nn.Module):
    def __init__(self, depth=16, width=16):
        super().__init__()
        self.enter = nn.Conv1d(BANDS, width, 3, padding=1)
        self.chain = nn.ModuleList([nn.Conv1d(width, width, 3, padding=1) for _ in range(depth)])
        self.leave = nn.Linear(width, CLASSES)

    def forward(self, x):
        x = torch.tanh(self.enter(x))
        for conv in self.chain:
            step = torch.tanh(conv(x))
            x = x + step if "--cured" in sys.argv else step
        return self.leave(x.mean(-1))


templates = torch.randn(CLASSES, BANDS, FRAMES)


def batch(n=32):
    kind = torch.randint(0, CLASSES, (n,))
    return templates[kind] + 0.7 * torch.randn(n, BANDS, FRAMES), kind


net = ClickNet()
optim = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, nesterov=True)
curve = []
for i in range(160):
    strips, kind = batch()
    optim.zero_grad()
    loss = F.cross_entropy(net(strips), kind)
    loss.backward()
    optim.step()
    curve.append(loss.detach())
print("final loss:", torch.stack(curve[-10:]).mean().item())
