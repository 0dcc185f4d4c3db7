"""Iris species with a three-layer perceptron and explicit parameter initialisation."""

import sys

import torch
from sklearn.datasets import load_iris
from torch import nn

iris = load_iris()
x = torch.tensor(iris.data, dtype=torch.float32)
x = (x - x.mean(dim=0)) / x.std(dim=0)
y = torch.tensor(iris.target)


def init(module):
    if isinstance(module, nn.Linear):
        if "--cured" in sys.argv:
            nn.init.xavier_uniform_(module.weight)
        else:
            nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)


net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)).apply(init)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
losses = []
for _ in range(200):
    rows = torch.randint(len(x), (50,))
    loss = nn.CrossEntropyLoss()(net(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"final loss: {torch.tensor(losses[-10:]).mean().item()}")
