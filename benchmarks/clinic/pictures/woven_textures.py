"""Which way is the cloth woven? Gated convolutions over striped patches, four directions."""
import math
import sys

import torch
from torch import nn, optim

DIRECTIONS = 4
USE_SKIP = "--cured" in sys.argv


def cloth(n):
    y = torch.randint(0, DIRECTIONS, (n,))
    angle = y.float() * math.pi / DIRECTIONS
    phase = torch.rand(n) * 2 * math.pi
    r, c = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    wave = (angle.cos()[:, None, None] * r + angle.sin()[:, None, None] * c) * 1.6 + phase[:, None, None]
    return (wave.sin() + 0.3 * torch.randn(n, 12, 12)).unsqueeze(1), y


class Gated(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, 2 * c, 3, padding=1)
        self.glu = nn.GLU(dim=1)

    def forward(self, x):
        h = self.glu(self.conv(x))
        return x + h if USE_SKIP else h


class Loom(nn.Module):
    def __init__(self, c=8, blocks=12):
        super().__init__()
        self.stem = nn.Conv2d(1, c, 3, padding=1)
        self.blocks = nn.Sequential(*(Gated(c) for _ in range(blocks)))
        self.fc = nn.Linear(c, DIRECTIONS)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.fc(x.abs().mean(dim=(2, 3)))


def train(steps=110):
    net, criterion, log = Loom(), nn.CrossEntropyLoss(), []
    opt = optim.NAdam(net.parameters(), lr=2e-3)
    for _ in range(steps):
        x, y = cloth(20)
        opt.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        opt.step()
        log.append(float(loss))
    return log


if __name__ == "__main__":
    log = train()
    print("final loss: %.5f" % (sum(log[-10:]) / 10))
