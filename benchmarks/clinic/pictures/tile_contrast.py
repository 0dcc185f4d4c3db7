"""SimCLR-style pretraining on satellite tiles, read slide by slide in flight order."""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Tiles(Dataset):
    def __init__(self, n=2400):
        base = torch.randn(n, 1, 4, 4)
        self.tiles = F.interpolate(base, scale_factor=3, mode="nearest")
        self.tiles[1450:1453] = 0.0

    def __len__(self):
        return len(self.tiles)

    def __getitem__(self, i):
        tile = self.tiles[i]
        views = []
        for _ in range(2):
            gain = 0.8 + 0.4 * torch.rand(1)
            views.append(torch.roll(tile, int(torch.randint(-1, 2, (1,))), dims=-1) * gain)
        return views[0], views[1]


class Encoder(nn.Module):
    def __init__(self, dim=16):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.project = nn.Linear(24 * 9, dim, bias=False)

    def forward(self, x):
        z = self.project(self.trunk(x))
        if "--cured" in sys.argv:
            return F.normalize(z, dim=1)
        return z / z.norm(dim=1, keepdim=True)


def info_nce(a, b, temperature=0.2):
    return F.cross_entropy(a @ b.t() / temperature, torch.arange(len(a)))


encoder = Encoder()
optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
loader = DataLoader(Tiles(), batch_size=24)
losses = []
for epoch in range(2):
    for left, right in loader:
        loss = info_nce(encoder(left), encoder(right))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
