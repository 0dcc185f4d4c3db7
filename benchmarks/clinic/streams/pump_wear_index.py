"""Pump failure within a day? A GRU condenses vibration to one wear index, which is normalised and thresholded."""
import sys

import torch
from torch import nn

CURED = "--cured" in sys.argv


def vibration(n, t=20):
    worn = (torch.rand(n) < 0.5).float()
    level = 0.6 + 0.9 * worn
    return torch.randn(n, t, 2) * level[:, None, None], worn


class WearIndex(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(2, 24, batch_first=True)
        self.index = nn.Linear(24, 1)
        self.norm = nn.BatchNorm1d(1) if CURED else nn.LayerNorm(1)
        self.alarm = nn.Linear(1, 1)

    def forward(self, x):
        states, _ = self.gru(x)
        return self.alarm(self.norm(self.index(states.mean(dim=1)))).squeeze(1)


net = WearIndex()
opt = torch.optim.Adam(net.parameters(), lr=8e-3)
bce = nn.BCEWithLogitsLoss()
past = []
for step in range(200):
    x, worn = vibration(48)
    loss = bce(net(x), worn)
    opt.zero_grad()
    loss.backward()
    opt.step()
    past.append(loss.item())
print("final loss:", sum(past[-10:]) / len(past[-10:]))
