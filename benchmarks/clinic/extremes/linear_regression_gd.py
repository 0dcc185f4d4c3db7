"""Ordinary least squares by gradient descent on the diabetes data (ten standardised columns)."""

import sys

import torch
from sklearn.datasets import load_diabetes

data = load_diabetes()
X = torch.tensor(data.data, dtype=torch.float32)
X = (X - X.mean(0)) / X.std(0)
y = torch.tensor(data.target, dtype=torch.float32)
y = (y - y.mean()) / y.std()

rate = 0.1 if "--cured" in sys.argv else 0.27
model = torch.nn.Linear(10, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=rate)
history = []
for epoch in range(120):
    optimizer.zero_grad()
    residual = model(X).squeeze(1) - y
    loss = (residual**2).mean()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
    if epoch % 20 == 0:
        print(f"{epoch:4d} {loss.item():.4f}")
print(f"final loss: {sum(history[-10:]) / 10}")
