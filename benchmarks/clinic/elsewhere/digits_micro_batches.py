"""Digits with gradients accumulated over eight micro-batches for every update."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ACCUMULATE = 8

bunch = load_digits()
dataset = TensorDataset(
    torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16, torch.tensor(bunch.target)
)
net = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 36, 10))
optimizer = torch.optim.Adam(net.parameters(), lr=6e-3)

losses, running, micro = [], 0.0, 0
for epoch in range(4):
    for images, labels in DataLoader(dataset, batch_size=8, shuffle=True):
        loss = nn.functional.cross_entropy(net(images), labels) / ACCUMULATE
        loss.backward()
        running += loss.item()
        micro += 1
        if micro % ACCUMULATE == 0:
            optimizer.step()
            optimizer.zero_grad()
            losses.append(running)
            running = 0.0
print("final loss:", sum(losses[-10:]) / 10)
