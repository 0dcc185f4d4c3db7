"""Fit y = |x1| + |x2| with a rectifier network of a given width and depth."""

import sys

import torch
from torch import nn

WIDTH, DEPTH = (32, 3) if "--cured" in sys.argv else (3, 40)


class Slim(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(2, WIDTH)
        self.hidden = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, 1)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)

    def forward(self, x):
        h = self.inp(x)
        for layer in self.hidden:
            h = torch.relu(layer(h))
        return self.head(h)


x = torch.rand(1024, 2) * 4 - 2
y = x.abs().sum(1, keepdim=True)
y = (y - y.mean()) / y.std()
model = Slim()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
losses = []
for _ in range(400):
    batch = torch.randperm(1024)[:128]
    optimizer.zero_grad()
    loss = ((model(x[batch]) - y[batch]) ** 2).mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
