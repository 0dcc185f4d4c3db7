"""Gestures from three-axis accelerometer snippets: convolution, normalisation, average over time, classifier."""

import sys

import numpy as np
import torch
from torch import nn


def make_gestures(n=900, length=40):
    kinds = np.random.randint(0, 4, n)
    t = np.arange(length) / length
    x = np.random.normal(0, 0.4, (n, 3, length))
    for i, kind in enumerate(kinds):
        rate = (2, 5)[kind // 2]
        axis = kind % 2
        x[i, axis] += 1.5 * np.sin(2 * np.pi * (rate * t + np.random.rand()))
    return torch.tensor(x).float(), torch.tensor(kinds)


class GestureNet(nn.Module):
    def __init__(self, n_classes=4):
        super().__init__()
        self.conv1 = nn.Conv1d(3, 16, 7, padding=3)
        self.conv2 = nn.Conv1d(16, 24, 5, padding=2)
        self.norm = nn.BatchNorm1d(24) if "--cured" in sys.argv else nn.InstanceNorm1d(24)
        self.fc = nn.Linear(24, n_classes)

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        x = self.norm(self.conv2(x))
        return self.fc(x.mean(dim=-1))


x, y = make_gestures()
net = GestureNet()
optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0)
running = []
for epoch in range(8):
    perm = torch.randperm(len(x))
    for start in range(0, len(x), 30):
        idx = perm[start : start + 30]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x[idx]), y[idx])
        loss.backward()
        optimizer.step()
        running.append(loss.item())
print("final loss:", np.mean(running[-10:]))
