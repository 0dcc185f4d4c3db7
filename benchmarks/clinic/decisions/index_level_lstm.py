"""Will the index close higher ten days on? An LSTM over thirty days of open, high, low, close and volume."""

import sys

import numpy as np
import torch
from torch import nn

DAYS, AHEAD = 30, 10


def market(n=1500):
    t = np.arange(n)
    swing = 900 * np.sin(2 * np.pi * t / 40 + np.random.uniform(0, 6)) + 60 * np.random.randn(n)
    close = 14000 + swing
    opening = np.r_[close[0], close[:-1]]
    high = np.maximum(opening, close) + 40 * np.random.rand(n)
    low = np.minimum(opening, close) - 40 * np.random.rand(n)
    volume = 2e6 + 1e5 * np.random.randn(n)
    return np.stack([opening, high, low, close, volume], axis=1)


table = market()
up = (table[AHEAD:, 3] > table[:-AHEAD, 3]).astype("float32")
features = table.copy()
if "--cured" in sys.argv:
    features = (features - features.mean(0)) / features.std(0)
starts = np.arange(len(table) - DAYS - AHEAD)
X = torch.tensor(np.stack([features[s : s + DAYS] for s in starts]), dtype=torch.float32)
Y = torch.tensor(up[starts + DAYS - 1])


class Trader(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 16, batch_first=True)
        self.drop = nn.Dropout(0.1)
        self.up = nn.Linear(16, 1)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.up(self.drop(out[:, -1])).squeeze(1)


model = Trader()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
crit = nn.BCEWithLogitsLoss()
curve = []
for epoch in range(6):
    for batch in torch.randperm(len(X)).split(48):
        opt.zero_grad()
        loss = crit(model(X[batch]), Y[batch])
        loss.backward()
        opt.step()
        curve.append(loss.item())
    print("epoch", epoch, np.mean(curve[-20:]).round(4))
print("final loss:", float(np.mean(curve[-10:])))
