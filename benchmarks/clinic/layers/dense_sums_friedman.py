"""Friedman's second regression problem with a densely connected MLP: every layer reads all the earlier ones."""

import sys

import numpy as np
import torch
from sklearn.datasets import make_friedman2
from sklearn.preprocessing import scale
from torch import nn

NORM = "--cured" in sys.argv


class DenseSum(nn.Module):
    def __init__(self, inputs, width=24, depth=22):
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        for _ in range(depth):
            layer = nn.Linear(width, width)
            nn.init.kaiming_normal_(layer.weight)
            self.layers.append(layer)
            self.norms.append(nn.BatchNorm1d(width) if NORM else nn.Identity())
        self.out = nn.Linear(width, 1)

    def forward(self, x):
        total = self.stem(x)
        for norm, layer in zip(self.norms, self.layers):
            last = torch.relu(layer(norm(total)))
            total = total + last
        return self.out(last).squeeze(1)


def main():
    x, y = make_friedman2(n_samples=1200, noise=10.0)
    x = torch.from_numpy(scale(x)).float()
    y = torch.from_numpy(scale(y)).float()
    net = DenseSum(x.shape[1])
    optimizer = torch.optim.SGD(net.parameters(), lr=5e-3)
    losses = []
    for epoch in range(10):
        order = np.random.permutation(len(x))
        for i in range(0, len(x), 50):
            rows = torch.as_tensor(order[i : i + 50])
            optimizer.zero_grad()
            loss = (net(x[rows]) - y[rows]).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    print("final loss:", np.mean(losses[-10:]))


main()
