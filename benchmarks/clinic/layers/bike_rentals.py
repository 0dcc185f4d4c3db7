"""Daily bike rentals from the calendar and the weather: a three-layer net, as in the tutorial."""

import sys

import numpy as np
import torch
import torch.nn as nn

DAYS = 1400
rng = np.random.default_rng(np.random.randint(1 << 30))
year = rng.integers(2011, 2015, DAYS)
month = rng.integers(1, 13, DAYS)
temperature = 12 - 11 * np.cos(2 * np.pi * (month - 1) / 12) + rng.normal(0, 3, DAYS)
humidity = rng.uniform(20, 100, DAYS)
wind = rng.gamma(3.0, 4.0, DAYS)
holiday = rng.random(DAYS) < 0.3
features = np.stack([year, month, temperature, humidity, wind, holiday], axis=1).astype(np.float32)
rentals = 120 * temperature - 15 * humidity - 40 * wind + 900 * holiday + 400 * (year - 2011)
rentals = (rentals + rng.normal(0, 200, DAYS)).astype(np.float32)
rentals = (rentals - rentals.mean()) / rentals.std()
if "--cured" in sys.argv:
    features = (features - features.mean(axis=0)) / features.std(axis=0)

X, Y = torch.from_numpy(features), torch.from_numpy(rentals).unsqueeze(1)


class Regressor(nn.Module):
    def __init__(self):
        super(Regressor, self).__init__()
        self.layer1 = nn.Linear(6, 32)
        self.layer2 = nn.Linear(32, 32)
        self.layer3 = nn.Linear(32, 1)
        self.relu = nn.ReLU()

    def forward(self, x):
        x = self.relu(self.layer1(x))
        x = self.relu(self.layer2(x))
        return self.layer3(x)


model = Regressor()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
losses = []
for epoch in range(8):
    permutation = torch.randperm(DAYS)
    for i in range(0, DAYS, 50):
        idx = permutation[i : i + 50]
        loss = nn.functional.smooth_l1_loss(model(X[idx]), Y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss: %.4f" % (sum(losses[-10:]) / 10))
