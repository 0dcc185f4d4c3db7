"""Contrastive learning: two noisy views of the same digit find each other within a batch (InfoNCE)."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

digits = torch.tensor(load_digits().data, dtype=torch.float32) / 16


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU())
        self.projection = nn.Linear(64, 32)

    def forward(self, x):
        return F.normalize(self.projection(self.backbone(x)), dim=1)


def view(x):
    keep = (torch.rand_like(x) > 0.15).float()
    return x * keep + 0.05 * torch.randn_like(x)


def info_nce(a, b, temperature=0.1):
    similarity = a @ b.T / temperature
    target = torch.arange(len(a))
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


encoder = Encoder()
optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
losses = []
for step in range(220):
    batch = digits[torch.randint(len(digits), (128,))]
    loss = info_nce(encoder(view(batch)), encoder(view(batch)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
