"""Turnover of shops in euros: squared errors summed over the batch, an MLP, Nesterov-accelerated Adam."""

import numpy as np
import torch
from sklearn.datasets import make_regression
from torch import nn

x, y = make_regression(n_samples=1000, n_features=8, n_informative=6, noise=5.0)
turnover = 40.0 * y + 90_000.0
x = torch.tensor(x, dtype=torch.float32)
turnover = torch.tensor(turnover, dtype=torch.float32)


class Shop(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.euros = nn.Linear(64, 1)
        with torch.no_grad():
            self.euros.bias.fill_(turnover.mean().item())

    def forward(self, x):
        return self.euros(self.body(x)).squeeze(1)


shop = Shop()
optimizer = torch.optim.NAdam(shop.parameters(), lr=0.03)
sse = nn.MSELoss(reduction="sum")
losses = []
for epoch in range(16):
    for rows in torch.randperm(len(x)).split(50):
        loss = sse(shop(x[rows]), turnover[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch}: sum of squares {np.mean(losses[-20:]):.4g}")
print("unexplained:", np.mean(losses[-10:]) / 50 / turnover.var().item())
print("final loss:", np.mean(losses[-10:]))
