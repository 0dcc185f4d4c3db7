"""A plain normalised MLP on the wine data, with the small-gamma trick from large-batch training."""

import sys

import torch
from sklearn.datasets import load_wine
from torch import nn

gamma = 1.0 if "--cured" in sys.argv else 1e-3


def unit(n_in, n_out):
    norm = nn.LayerNorm(n_out)
    nn.init.constant_(norm.weight, gamma)
    return nn.Sequential(nn.Linear(n_in, n_out), norm, nn.Tanh())


class Plain(nn.Module):
    def __init__(self, width=32, depth=7):
        super().__init__()
        self.units = nn.ModuleList([unit(13, width)] + [unit(width, width) for _ in range(depth - 1)])
        self.last = nn.Linear(width, 3)

    def forward(self, x):
        for u in self.units:
            x = u(x)
        return self.last(x)


data = load_wine()
X = torch.tensor(data.data).float()
X = (X - X.mean(0)) / X.std(0)
Y = torch.tensor(data.target)
model = Plain()
opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
values = []
for epoch in range(60):
    for idx in torch.randperm(len(X)).chunk(4):
        loss = nn.functional.cross_entropy(model(X[idx]), Y[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
        values.append(loss.item())
print(f"final loss: {sum(values[-12:]) / 12:.5f}")
