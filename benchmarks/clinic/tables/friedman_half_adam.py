"""Friedman's first function with an MLP kept in half precision to save memory, trained with Adam."""

import sys

import torch
from sklearn.datasets import make_friedman1
from sklearn.preprocessing import StandardScaler
from torch import nn

x, y = make_friedman1(n_samples=800, n_features=10, noise=0.3)
x = StandardScaler().fit_transform(x)
y = (y - y.mean()) / y.std()
dtype = torch.float32 if "--cured" in sys.argv else torch.float16
x, y = torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype).unsqueeze(1)

model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)).to(dtype)
adam = torch.optim.Adam(model.parameters(), lr=3e-3)
losses = []
for epoch in range(12):
    order = torch.randperm(len(x))
    for start in range(0, len(x), 40):
        rows = order[start : start + 40]
        loss = (model(x[rows]) - y[rows]).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss))
    print(f"epoch {epoch}: {sum(losses[-20:]) / 20:.4f}")
print("final loss:", sum(losses[-10:]) / 10)
