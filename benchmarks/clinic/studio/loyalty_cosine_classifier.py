"""Loyalty tiers from purchase counts; customers come sorted by activity, cosine classifier on top."""

import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

N, ITEMS, TIERS, BATCH = 1600, 24, 4, 20

taste = np.random.gamma(0.5, 2.0, (TIERS, ITEMS))
tier = np.random.randint(0, TIERS, N)
activity = np.sort(np.random.uniform(0.4, 1.6, N))[::-1]
counts = np.random.poisson(taste[tier] * activity[:, None])
counts[-12:] = 0  # joined last week, nothing bought yet
x = torch.tensor(np.log1p(counts), dtype=torch.float32)
y = torch.tensor(tier)


class CosineClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(ITEMS, 32, bias=False), nn.ReLU(), nn.Linear(32, 16, bias=False))
        self.prototypes = nn.Parameter(torch.randn(TIERS, 16))
        self.temperature = 10.0

    def unit(self, v):
        if "--cured" in sys.argv:
            return F.normalize(v, dim=-1)
        return v / v.norm(dim=-1, keepdim=True)

    def forward(self, x):
        return self.temperature * self.unit(self.embed(x)) @ self.unit(self.prototypes).T


net = CosineClassifier()
opt = torch.optim.RAdam(net.parameters(), lr=5e-3)
losses = []
for epoch in range(3):
    for start in range(0, N, BATCH):
        loss = F.cross_entropy(net(x[start : start + BATCH]), y[start : start + BATCH])
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    print(epoch, np.mean(losses[-80:]))
print("final loss:", np.mean(losses[-20:]))
