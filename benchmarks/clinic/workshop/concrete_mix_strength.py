"""Compressive strength from the mix (kg per cubic metre) and the age in days."""
import sys

import numpy as np
import torch
from torch import nn

rng = np.random.default_rng()
n = 800
mix = np.column_stack([
    rng.uniform(150, 500, n),  # cement
    rng.uniform(0, 200, n),  # slag
    rng.uniform(120, 240, n),  # water
    rng.uniform(800, 1100, n),  # coarse aggregate
    rng.uniform(600, 950, n),  # fine aggregate
    rng.integers(1, 365, n),  # age
])
ratio = (mix[:, 0] + 0.6 * mix[:, 1]) / mix[:, 2]
strength = 14 * ratio * np.log1p(mix[:, 5]) / np.log1p(28) + rng.normal(0, 2, n)
target = (strength - strength.mean()) / strength.std()

if "--cured" in sys.argv:
    mix = (mix - mix.mean(0)) / mix.std(0)

x = torch.tensor(mix, dtype=torch.float32)
y = torch.tensor(target, dtype=torch.float32).unsqueeze(1)


class StrengthNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Linear(6, 32)
        self.layer2 = nn.Linear(32, 32)
        self.output = nn.Linear(32, 1)

    def forward(self, x):
        x = nn.functional.leaky_relu(self.layer1(x))
        x = nn.functional.leaky_relu(self.layer2(x))
        return self.output(x)


def train(model, epochs=16, batch=50, lr=0.02):
    sgd = torch.optim.SGD(model.parameters(), lr=lr)
    losses = []
    for _ in range(epochs):
        order = torch.randperm(n)
        for start in range(0, n, batch):
            idx = order[start : start + batch]
            loss = nn.functional.mse_loss(model(x[idx]), y[idx])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            losses.append(loss.item())
    return losses


print("final loss:", np.mean(train(StrengthNet())[-10:]))
