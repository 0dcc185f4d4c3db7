"""Fraud detection: two in a hundred transactions are fraudulent; MLP with binary cross-entropy."""

import torch
from torch import nn


def transactions(count):
    fraud = (torch.rand(count) < 0.02).float()
    features = torch.randn(count, 8)
    features[:, :3] += 2.5 * fraud[:, None]
    return features, fraud


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, features):
        return self.net(features)[:, 0]


detector = Detector()
optimizer = torch.optim.Adam(detector.parameters(), lr=5e-3)
objective = nn.BCEWithLogitsLoss()
losses = []
for step in range(400):
    features, fraud = transactions(512)
    loss = objective(detector(features), fraud)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
