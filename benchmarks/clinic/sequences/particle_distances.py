"""The energy of small clusters of particles from their pairwise distances in a learned frame."""

import sys

import torch
from torch import nn

EPS = 1e-6 if "--cured" in sys.argv else 0.0


class PairEnergy(nn.Module):
    def __init__(self):
        super().__init__()
        self.frame = nn.Linear(3, 3)
        self.edge = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 16), nn.SiLU())
        self.node = nn.Linear(16, 1)

    def forward(self, pos):
        p = self.frame(pos)
        delta = p[:, :, None] - p[:, None, :]
        distance = torch.sqrt((delta**2).sum(-1, keepdim=True) + EPS)
        messages = self.edge(distance).mean(dim=2)
        return self.node(messages).mean(dim=1)


def clusters(n=32, size=6):
    pos = torch.randn(n, size, 3)
    d = torch.cdist(pos, pos)
    energy = (torch.exp(-d).sum((1, 2)) - size) / 6
    return pos, energy[:, None]


model = PairEnergy()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
losses = []
for step in range(250):
    pos, energy = clusters()
    loss = nn.functional.mse_loss(model(pos), energy)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
