"""Digits through a wide layer of which only the eight strongest units of two hundred may speak (k-winners-take-all)."""

import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from sklearn.preprocessing import minmax_scale


class KWinners(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, x):
        values, places = torch.topk(x, self.k, dim=-1)
        return torch.zeros_like(x).scatter(-1, places, values)


images, labels = load_digits(return_X_y=True)
images = torch.tensor(minmax_scale(images), dtype=torch.float32)
labels = torch.tensor(labels)

net = nn.Sequential(nn.Linear(64, 200), KWinners(8), nn.Linear(200, 10))
opt = torch.optim.Adamax(net.parameters(), lr=6e-3)
losses = []
for epoch in range(8):
    shuffled = torch.randperm(len(images))
    for rows in shuffled.split(50):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(images[rows]), labels[rows])
        loss.backward()
        opt.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
