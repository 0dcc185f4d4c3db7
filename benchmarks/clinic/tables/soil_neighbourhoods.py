"""Neighbourhood components analysis: learn a projection of soil measurements in which neighbours share a type."""

import sys

import torch
from sklearn.datasets import make_blobs
from sklearn.preprocessing import StandardScaler
from torch import nn

x, y = make_blobs(600, n_features=3, centers=[[-2, 0, 2], [2, 2, 0], [0, -2, -2]], cluster_std=0.7)
x = torch.cat([torch.tensor(x), torch.randn(600, 9) * 400.0], dim=1)  # the last columns are in mg/kg
if "--cured" in sys.argv:
    x = torch.tensor(StandardScaler().fit_transform(x.numpy()))
x, y = x.float(), torch.tensor(y)


class NCA(nn.Module):
    def __init__(self, columns, dims):
        super().__init__()
        self.project = nn.Linear(columns, dims, bias=False)

    def forward(self, x, y):
        z = self.project(x)
        d = (z[:, None] - z[None]).square().sum(2)
        d = d.masked_fill(torch.eye(len(x), dtype=torch.bool), float("inf"))
        p = torch.softmax(-d, dim=1)
        return 1 - (p * (y[:, None] == y[None])).sum(1).mean()


nca = NCA(12, 4)
optimizer = torch.optim.Adam(nca.parameters(), lr=0.02)
missed = []
for epoch in range(20):
    for rows in torch.randperm(600).split(60):
        loss = nca(x[rows], y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        missed.append(loss.item())
print("final loss:", sum(missed[-10:]) / 10)
