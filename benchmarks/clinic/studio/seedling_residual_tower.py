"""Seedling traits to species, a residual tower of 24 blocks."""

import sys

import torch
from sklearn.datasets import make_blobs
from torch import nn

WIDTH, BLOCKS = 40, 24


class ResBlock(nn.Module):
    def __init__(self, width, norm):
        super().__init__()
        self.norm = norm(width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x):
        return x + self.fc2(torch.relu(self.fc1(self.norm(x))))


class Tower(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        norm = nn.LayerNorm if "--cured" in sys.argv else nn.Identity
        self.stem = nn.Linear(n_in, WIDTH)
        self.blocks = nn.Sequential(*(ResBlock(WIDTH, norm) for _ in range(BLOCKS)))
        self.top = norm(WIDTH)
        self.head = nn.Linear(WIDTH, n_out)
        self.apply(self._init)

    @staticmethod
    def _init(m):
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            nn.init.zeros_(m.bias)

    def forward(self, x):
        return self.head(self.top(self.blocks(self.stem(x))))


traits, species = make_blobs(1600, n_features=12, centers=6, cluster_std=3.0)
traits = torch.tensor((traits - traits.mean(0)) / traits.std(0)).float()
species = torch.tensor(species)
tower = Tower(12, 6)
optim = torch.optim.SGD(tower.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
losses = []
for it in range(160):
    b = torch.randint(len(traits), (32,))
    loss = nn.functional.cross_entropy(tower(traits[b]), species[b])
    optim.zero_grad()
    loss.backward()
    optim.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
