"""Digits with an MLP; the arrays are reshuffled at the start of every epoch."""

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

CURED = "--cured" in sys.argv


def epochs(images, labels, count, size):
    for _ in range(count):
        order = np.random.permutation(len(images))
        images = images[order]
        labels = labels[order] if CURED else labels[np.random.permutation(len(labels))]
        for start in range(0, len(images) - size + 1, size):
            part = slice(start, start + size)
            yield torch.from_numpy(images[part]), torch.from_numpy(labels[part])


def build():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


digits = load_digits()
net = build()
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
loss_fn = nn.CrossEntropyLoss()
log = []
for images, labels in epochs((digits.data / 16).astype(np.float32), digits.target, count=8, size=60):
    loss = loss_fn(net(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    log.append(loss.item())
print(f"final loss: {np.mean(log[-10:])}")
