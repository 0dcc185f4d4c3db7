"""Quantisation-aware training: four-bit weights and activations, gradients straight through the rounding."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


def quantise(w, bits=4):
    top = 2 ** (bits - 1) - 1
    unit = w.detach().abs().max() / top
    return Round.apply((w / unit).clamp(-top, top)) * unit


class QLinear(nn.Linear):
    def forward(self, x):
        return F.linear(x, quantise(self.weight), self.bias)


class QNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = QLinear(64, 48)
        self.second = QLinear(48, 48)
        self.last = QLinear(48, 10)

    def forward(self, x):
        for layer in (self.first, self.second):
            x = Round.apply(layer(x).clamp(0, 3) * 5) / 5
        return self.last(x)


x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x).float() / 8 - 1, torch.tensor(y)
net = QNet()
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
losses = []
for epoch in range(10):
    for rows in torch.randperm(len(x)).split(60):
        loss = F.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
