"""Probabilistic one-step forecasts of a seasonal series: a GRU with mean and log-variance, negative log-likelihood."""
import math

import torch
from torch import nn


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(1, 20, batch_first=True)
        self.mean = nn.Linear(20, 1)
        self.log_var = nn.Linear(20, 1)

    def forward(self, y):
        h, _ = self.rnn(y)
        return self.mean(h), self.log_var(h)


def windows(n, length=30):
    t = torch.rand(n, 1) * 100 + torch.arange(length + 1.0)
    y = 0.4 * torch.sin(2 * math.pi * t / 12) + 0.2 * torch.cos(2 * math.pi * t / 6)
    y = y + 0.01 * torch.randn_like(y)
    return y[:, :-1, None], y[:, 1:, None]


model = Forecaster()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.98))
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
losses = []
for step in range(300):
    past, future = windows(16)
    mean, log_var = model(past)
    nll = 0.5 * (log_var + (future - mean) ** 2 / log_var.exp() + math.log(2 * math.pi)).mean()
    optimizer.zero_grad()
    nll.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    losses.append(nll.item())
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
