"""Digits with a small conv net whose maps are contrast-normalised, scan line by scan line."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

EPS = 1e-5 if "--cured" in sys.argv else 0.0


class ContrastNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x):
        mean = x.mean(dim=3, keepdim=True)
        var = (x - mean).pow(2).mean(dim=3, keepdim=True)
        return self.gain * (x - mean) / torch.sqrt(var + EPS) + self.shift


def stage(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), ContrastNorm(b))


x, y = load_digits(return_X_y=True)
x = torch.tensor(x).float().reshape(-1, 1, 8, 8) / 16
y = torch.tensor(y)

net = nn.Sequential()
net.add_module("stage1", stage(1, 8))
net.add_module("stage2", stage(8, 16))
net.add_module("pool", nn.AvgPool2d(2))
net.add_module("flat", nn.Flatten())
net.add_module("out", nn.Linear(256, 10))

optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3, momentum=0.5)
criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
history = []
for epoch in range(5):
    for rows in torch.randperm(len(x)).split(60):
        loss = criterion(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    print(f"epoch {epoch}: {sum(history[-30:]) / 30:.3f}")
print("final loss:", sum(history[-10:]) / 10)
