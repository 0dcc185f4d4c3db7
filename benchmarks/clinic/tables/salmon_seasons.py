"""Salmon runs: a net turns river covariates into the growth rate and capacity of a Ricker population model."""

import sys

import torch
from torch import nn

HORIZON = 2 if "--cured" in sys.argv else 60
RIVERS, SEASONS = 64, 65


def truth(covariates):
    rate = 3.0 + 0.25 * torch.tanh(covariates[:, 0] + covariates[:, 1])
    capacity = 1.0 + 0.4 * torch.tanh(covariates[:, 2])
    return rate, capacity


def season(stock, rate, capacity):
    return stock * torch.exp(rate * (1 - stock / capacity))


class Rivers(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(3, 16)
        self.traits = nn.Linear(16, 2)

    def forward(self, covariates):
        rate, capacity = self.traits(torch.tanh(self.hidden(covariates))).unbind(1)
        return 3.05 + 0.35 * torch.tanh(rate), 1.2 + 0.5 * torch.tanh(capacity)


covariates = torch.randn(RIVERS, 3)
counts = [0.3 + torch.rand(RIVERS)]
rate, capacity = truth(covariates)
for _ in range(SEASONS - 1):
    counts.append(season(counts[-1], rate, capacity))
counts = torch.stack(counts, 1)

model = Rivers()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
losses = []
for step in range(150):
    rate, capacity = model(covariates)
    start = int(torch.randint(0, SEASONS - HORIZON, ()))
    stock = counts[:, start]
    error = 0.0
    for k in range(1, HORIZON + 1):
        stock = season(stock, rate, capacity)
        error = error + (stock - counts[:, start + k]).square().mean()
    loss = error / HORIZON / counts.var()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
