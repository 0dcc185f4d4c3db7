"""Tumour classification with a small tanh network on the measurements as they come."""

import sys

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import scale
from torch import nn

features, target = load_breast_cancer(return_X_y=True)
if "--cured" in sys.argv:
    features = scale(features)
features = torch.tensor(features, dtype=torch.float32)
target = torch.tensor(target, dtype=torch.float32).unsqueeze(1)

model = nn.Sequential(nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
opt = torch.optim.SGD(model.parameters(), lr=0.05)
bce = nn.BCEWithLogitsLoss()
tail = []
for step in range(300):
    opt.zero_grad()
    loss = bce(model(features), target)
    loss.backward()
    opt.step()
    tail.append(loss.item())
print(f"final loss: {sum(tail[-10:]) / 10:.4f}")
