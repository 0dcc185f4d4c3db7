"""Regress diabetes progression on ten measurements with a small residual MLP."""

import sys

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x):
        return x + self.f(x)


data = load_diabetes()
x = (data.data / data.data.std(axis=0)).astype(np.float32)
y = ((data.target - data.target.mean()) / data.target.std()).astype(np.float32)
if "--cured" in sys.argv:
    y = y[:, None]
loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=68, shuffle=True)

model = nn.Sequential(nn.Linear(10, 32), Residual(32), Residual(32), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
losses = []
for epoch in range(40):
    for features, progression in loader:
        loss = (model(features) - progression).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", np.mean(losses[-10:]))
