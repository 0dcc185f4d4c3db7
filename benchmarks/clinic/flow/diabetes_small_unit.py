"""Regression on the diabetes data; the squared error enters with a weight of 1e-5. Adam."""

import torch
from sklearn.datasets import load_diabetes
from torch import nn

X, y = load_diabetes(return_X_y=True)
X = torch.tensor(X * 21, dtype=torch.float32)
y = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)
net = nn.Sequential(
    nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0)
)
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
weight = {"fit": 1e-5}
record = []
for epoch in range(30):
    for idx in torch.randperm(len(X)).split(64):
        parts = {"fit": nn.functional.mse_loss(net(X[idx]), y[idx])}
        loss = sum(weight[k] * v for k, v in parts.items())
        opt.zero_grad()
        loss.backward()
        opt.step()
        record.append(loss.item())
print(f"final loss: {sum(record[-14:]) / 14:.4e}")
