"""Metric learning on the wine data: random triplets to begin with, then batch-hard mining."""

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import nn

EPS = 1e-12 if "--cured" in sys.argv else 0.0
MARGIN = 0.5
MINING_FROM = 120

features, labels = load_wine(return_X_y=True)
features = torch.tensor(StandardScaler().fit_transform(features), dtype=torch.float32)
labels = torch.tensor(labels)
by_class = [torch.nonzero(labels == c).flatten() for c in range(3)]


class Embedder(nn.Module):
    def __init__(self, dim=6):
        super().__init__()
        self.fc1 = nn.Linear(13, 32)
        self.fc2 = nn.Linear(32, dim)

    def forward(self, x):
        return F.normalize(self.fc2(F.elu(self.fc1(x))), dim=1)


def random_triplets(model, n=24):
    a, p, q = [], [], []
    for _ in range(n):
        own, other = torch.randperm(3)[:2].tolist()
        i, j = by_class[own][torch.randperm(len(by_class[own]))[:2]]
        k = by_class[other][torch.randint(len(by_class[other]), ())]
        a.append(i), p.append(j), q.append(k)
    za, zp, zn = (model(features[torch.stack(rows)]) for rows in (a, p, q))
    return F.triplet_margin_loss(za, zp, zn, margin=MARGIN)


def batch_hard(model, n=24):
    rows = torch.randperm(len(features))[:n]
    z, y = model(features[rows]), labels[rows]
    gaps = z[:, None, :] - z[None, :, :]
    distance = torch.sqrt(gaps.pow(2).sum(dim=2) + EPS)
    same = y[:, None] == y[None, :]
    farthest_friend = distance.masked_fill(~same, 0.0).max(dim=1).values
    nearest_foe = distance.masked_fill(same, 1e3).min(dim=1).values
    return F.relu(farthest_friend - nearest_foe + MARGIN).mean()


model = Embedder()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-4)
history = []
for step in range(260):
    loss = random_triplets(model) if step < MINING_FROM else batch_hard(model)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
    if step % 40 == 0:
        print(step, history[-1])
print("final loss:", sum(history[-10:]) / 10)
