"""Tabular classification with a stack of gated linear units."""

import sys

import torch
from sklearn.datasets import make_classification
from torch import nn

DEPTH = 3 if "--cured" in sys.argv else 14


class Gated(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.value = nn.Linear(n_in, n_out)
        self.gate = nn.Linear(n_in, n_out)

    def forward(self, x):
        return self.value(x) * torch.sigmoid(self.gate(x))


class Table(nn.Module):
    def __init__(self, columns, classes, width=40):
        super().__init__()
        self.blocks = nn.Sequential(*[Gated(columns if i == 0 else width, width) for i in range(DEPTH)])
        self.classify = nn.Linear(width, classes)

    def forward(self, x):
        return self.classify(self.blocks(x))


def batches(x, y, size, epochs):
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for i in range(0, len(x), size):
            yield x[order[i : i + size]], y[order[i : i + size]]


def main():
    x, y = make_classification(1200, 16, n_informative=8, n_classes=4, n_clusters_per_class=1, class_sep=2.0)
    x = torch.tensor((x - x.mean(0)) / x.std(0)).float()
    y = torch.tensor(y)
    net = Table(16, 4)
    opt = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9)
    seen = []
    for xb, yb in batches(x, y, 50, 8):
        loss = nn.functional.cross_entropy(net(xb), yb)
        opt.zero_grad()
        loss.backward()
        opt.step()
        seen.append(loss.item())
    print("final loss:", sum(seen[-10:]) / 10)


main()
