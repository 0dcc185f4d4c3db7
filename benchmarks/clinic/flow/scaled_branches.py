"""A residual MLP with scaled branches (as in NFNets) on synthetic tabular data."""

import sys

import torch
from sklearn.datasets import make_classification
from torch import nn


class ScaledBlock(nn.Module):
    def __init__(self, dim, alpha=0.1):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.alpha = alpha

    def forward(self, x):
        out = self.alpha * self.body(x)
        if "--cured" in sys.argv:
            out = out + x
        return out


class ResNet(nn.Module):
    def __init__(self, n_in, dim, n_blocks, n_out):
        super().__init__()
        self.stem = nn.Linear(n_in, dim)
        self.trunk = nn.Sequential(*(ScaledBlock(dim) for _ in range(n_blocks)))
        self.head = nn.Linear(dim, n_out)

    def forward(self, x):
        return self.head(self.trunk(self.stem(x)))


X, y = make_classification(
    1500, 20, n_informative=12, n_redundant=0, n_classes=4, n_clusters_per_class=1, class_sep=2.0
)
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
net = ResNet(20, 48, 8, 4)
opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
losses = []
for epoch in range(12):
    perm = torch.randperm(len(X))
    for start in range(0, len(X), 75):
        idx = perm[start : start + 75]
        loss = nn.functional.cross_entropy(net(X[idx]), y[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
