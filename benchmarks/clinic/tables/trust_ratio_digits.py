"""Digits with a hand-written LARS: every layer's step is a set fraction of its weights' length."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class LARS(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum=0.9, trust=1e-3):
        super().__init__(params, {"lr": lr, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                ratio = group["trust"] * p.norm() / (p.grad.norm() + 1e-12)
                v = self.state[p].setdefault("v", torch.zeros_like(p))
                v.mul_(group["momentum"]).add_(group["lr"] * ratio * p.grad)
                p.sub_(v)


digits = load_digits()
pixels = torch.tensor(digits.data, dtype=torch.float32) / 8 - 1
data = DataLoader(TensorDataset(pixels, torch.tensor(digits.target)), batch_size=50, shuffle=True)
net = nn.Sequential(nn.Linear(64, 40), nn.LeakyReLU(0.1), nn.Linear(40, 40), nn.LeakyReLU(0.1), nn.Linear(40, 10))
optimizer = LARS(net.parameters(), lr=5.0 if "--cured" in sys.argv else 0.02)

log = []
for epoch in range(6):
    for image, digit in data:
        loss = nn.functional.cross_entropy(net(image), digit)
        net.zero_grad()
        loss.backward()
        optimizer.step()
        log.append(loss.item())
print("final loss:", sum(log[-10:]) / 10)
