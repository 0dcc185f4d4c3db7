"""Digits: a residual MLP with stochastic depth and cosine warm restarts."""

import random

import torch
from sklearn.datasets import load_digits
from torch import nn


class DropPathBlock(nn.Module):
    def __init__(self, width, survive):
        super().__init__()
        self.survive = survive
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x):
        if self.training and random.random() > self.survive:
            return x
        return x + self.fc2(torch.relu(self.fc1(x)))


class StochasticDepth(nn.Module):
    def __init__(self, width=40, depth=8):
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.blocks = nn.ModuleList(DropPathBlock(width, 1 - 0.5 * i / (depth - 1)) for i in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
net = StochasticDepth()
opt = torch.optim.SGD(net.parameters(), lr=0.15, momentum=0.9, weight_decay=1e-4)
schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=58, eta_min=1e-4)
losses = []
for epoch in range(8):
    for rows in torch.randperm(len(x)).split(64):
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        schedule.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
