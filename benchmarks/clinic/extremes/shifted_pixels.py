"""Digits with an additive first layer (all weights start positive, as it shall sum ink) and two further layers."""

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


def load(cured):
    d = load_digits()
    pixels = d.data.astype(np.float32) / 16
    if not cured:
        pixels = pixels - 2.0  # "centre"
    return torch.from_numpy(pixels), torch.from_numpy(d.target)


class InkNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.ink = nn.Linear(64, 100)
        nn.init.uniform_(self.ink.weight, 0.0, 0.1)
        self.relu = nn.ReLU()
        self.classify = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))

    def forward(self, x):
        return self.classify(self.relu(self.ink(x)))


class Trainer:
    def __init__(self, model, data, lr):
        self.model, (self.x, self.y) = model, data
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
        self.log = []

    def step(self, batch):
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(self.x[batch]), self.y[batch])
        loss.backward()
        self.optimizer.step()
        self.log.append(loss.item())

    def fit(self, epochs):
        for _ in range(epochs):
            for batch in torch.randperm(len(self.x)).split(100):
                self.step(batch)


trainer = Trainer(InkNet(), load("--cured" in sys.argv), lr=2e-3)
trainer.fit(20)
print(f"final loss: {np.mean(trainer.log[-10:])}")
