"""Classify wine cultivars from chemical measurements with a small MLP and plain SGD."""

import sys

import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import nn

cured = "--cured" in sys.argv

raw, target = load_wine(return_X_y=True)
inputs = torch.tensor(StandardScaler().fit_transform(raw), dtype=torch.float32)
labels = torch.tensor(target)

model = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2 if cured else 1e-6)
criterion = nn.CrossEntropyLoss()

history = []
for epoch in range(150):
    optimizer.zero_grad()
    loss = criterion(model(inputs), labels)
    loss.backward()
    optimizer.step()
    history.append(loss.item())

print(f"final loss: {sum(history[-10:]) / 10}")
