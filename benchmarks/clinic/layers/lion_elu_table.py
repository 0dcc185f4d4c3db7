"""A synthetic table, an ELU net and a hand-written Lion (Chen et al., 2023)."""

import sys

import torch
from sklearn.datasets import make_classification
from torch import nn


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                update = (b1 * m + (1 - b1) * p.grad).sign()
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


x, y = make_classification(
    n_samples=1600, n_features=20, n_informative=10, n_redundant=4, n_classes=4, class_sep=1.6, flip_y=0.0
)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
x = (x - x.mean(0)) / x.std(0)

net = nn.Sequential(
    nn.Linear(20, 48), nn.ELU(),
    nn.Linear(48, 48), nn.ELU(),
    nn.Linear(48, 48), nn.ELU(),
    nn.Linear(48, 4),
)
optimizer = Lion(net.parameters(), lr=1e-3 if "--cured" in sys.argv else 0.3, weight_decay=1e-2)
losses = []
for epoch in range(10):
    for rows in torch.randperm(len(x)).split(64):
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
