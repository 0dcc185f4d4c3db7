"""Breast cancer biopsies: an MLP with its own batch standardisation, momentum SGD."""

import sys

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import scale
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Standardise(nn.Module):
    """Zero mean and unit variance over the batch, then a learned gain and shift."""

    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.eps = 1e-5 if "--cured" in sys.argv else 0.0

    def forward(self, h):
        mean = h.mean(0)
        variance = (h - mean).square().mean(0)
        return self.gain * (h - mean) / torch.sqrt(variance + self.eps) + self.shift


class Net(nn.Module):
    def __init__(self, widths=(30, 48, 48)):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.norms = nn.ModuleList(Standardise(b) for b in widths[1:])
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms):
            x = norm(torch.relu(layer(x)))
        return self.head(x).squeeze(-1)


x, y = load_breast_cancer(return_X_y=True)
data = TensorDataset(torch.tensor(scale(x)).float(), torch.tensor(y).float())
net = Net()
criterion = nn.BCEWithLogitsLoss()
optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
record = []
for epoch in range(5):
    for xb, yb in DataLoader(data, batch_size=12, shuffle=True, drop_last=True):
        loss = criterion(net(xb), yb)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        record.append(loss.item())
print("final loss:", sum(record[-10:]) / 10)
