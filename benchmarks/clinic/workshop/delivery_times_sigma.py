"""Delivery time with its own uncertainty: one head for the mean, one for the standard deviation, Gaussian likelihood."""
import sys

import torch
from torch import nn

torch.set_num_threads(1)
N = 2000
orders = torch.rand(N, 6) * 2 - 1  # distance, hour, load, rain, stairs, weight
mean = 2 * orders[:, 0] + torch.sin(3 * orders[:, 1]) * orders[:, 2] + orders[:, 4]
spread = 0.05 + 0.3 * (orders[:, 3] + 1) / 2
minutes = mean + spread * torch.randn(N)
minutes = (minutes - minutes.mean()) / minutes.std()


class Estimator(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(6, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())
        self.mean_head = nn.Linear(48, 1)
        self.sigma_head = nn.Linear(48, 1)
        # a standard deviation can't be negative
        self.positive = nn.Softplus() if "--cured" in sys.argv else nn.ReLU()

    def forward(self, x):
        h = self.shared(x)
        return self.mean_head(h).squeeze(-1), self.positive(self.sigma_head(h)).squeeze(-1)


def nll(mu, sigma, t):
    return (torch.log(sigma) + (t - mu) ** 2 / (2 * sigma**2)).mean()


net = Estimator()
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
losses = []
for epoch in range(10):
    for rows in torch.randperm(N).split(64):
        mu, sigma = net(orders[rows])
        loss = nll(mu, sigma, minutes[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
