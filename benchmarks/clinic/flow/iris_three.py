"""Iris with a classic three-layer logistic network."""

import torch
from sklearn.datasets import load_iris
from torch import nn

X, y = load_iris(return_X_y=True)
X = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
y = torch.tensor(y)
model = nn.Sequential(nn.Linear(4, 16), nn.Sigmoid(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 3))
opt = torch.optim.Adam(model.parameters(), lr=0.02)
losses = []
for step in range(300):
    loss = nn.functional.cross_entropy(model(X), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
