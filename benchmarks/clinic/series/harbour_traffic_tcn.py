"""Ships per hour a day ahead: dilated causal convolutions, Nesterov momentum."""

import sys

import torch
import torch.nn.functional as F
from torch import nn


class Causal(nn.Module):
    def __init__(self, inputs, outputs, dilation):
        super().__init__()
        self.pad = 2 * dilation
        self.conv = nn.Conv1d(inputs, outputs, 3, dilation=dilation)

    def forward(self, x):
        return self.conv(F.pad(x, (self.pad, 0)))


class Forecaster(nn.Module):
    def __init__(self, width=12):
        super().__init__()
        self.first = Causal(1, width, 1)
        self.blocks = nn.ModuleList([Causal(width, width, 2**i) for i in range(1, 4)])
        self.last = nn.Conv1d(width, 1, 1)

    def forward(self, x):
        x = F.gelu(self.first(x))
        for block in self.blocks:
            x = x + F.gelu(block(x))
        return self.last(x)


hours = torch.arange(2000.0)
ships = torch.sin(hours * 2 * torch.pi / 24) + 0.4 * torch.sin(hours * 2 * torch.pi / 168) + 0.2 * torch.randn(2000)
ships = (ships - ships.mean()) / ships.std()
model = Forecaster()
rate = 0.01 if "--cured" in sys.argv else 2.0
optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True)
history = []
for step in range(120):
    starts = torch.randint(0, 2000 - 65, (16,))
    series = torch.stack([ships[s : s + 65] for s in starts])[:, None]
    prediction = model(series[..., :-1])
    loss = F.mse_loss(prediction, series[..., 1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
print("final loss:", sum(history[-10:]) / 10)
