"""Which of twelve alarms will a machine raise in the next minute? Vibration windows, GRU, several labels a window."""

import sys

import torch
from torch import nn

ALARMS, LENGTH = 12, 16


class AlarmNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(ALARMS, 32, batch_first=True)
        self.head = nn.Sequential(nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, ALARMS))

    def forward(self, x):
        _, h = self.gru(x)
        scores = self.head(h[-1])
        if "--cured" in sys.argv:
            return scores
        return torch.sigmoid(scores)


def windows(n):
    active = (torch.rand(n, ALARMS) < 0.12).float()
    x = 0.5 * torch.randn(n, LENGTH, ALARMS) + active[:, None] * 1.5
    return x, active


class Trainer:
    def __init__(self, model, lr):
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        self.criterion = nn.BCEWithLogitsLoss()
        self.losses = []

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def fit(self, steps):
        for _ in range(steps):
            self.step(*windows(48))
        return sum(self.losses[-10:]) / 10


print("final loss:", Trainer(AlarmNet(), 3e-3).fit(250))
