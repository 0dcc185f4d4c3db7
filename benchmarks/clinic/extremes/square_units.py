"""Digits with quadratic units (as in polynomial networks), six layers."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn


class Square(nn.Module):
    def forward(self, x):
        return x**2


activation = nn.ReLU if "--cured" in sys.argv else Square
layers = []
for i in range(6):
    linear = nn.Linear(64, 64)
    nn.init.kaiming_normal_(linear.weight)
    layers += [linear, activation()]
network = nn.Sequential(*layers, nn.Linear(64, 10))

data = load_digits()
inputs = torch.tensor((data.data - data.data.mean(0)) / 6.0, dtype=torch.float32)
targets = torch.tensor(data.target)
optimizer = torch.optim.RMSprop(network.parameters(), lr=1e-3)
losses = []
for step in range(200):
    at = torch.randint(len(inputs), (128,))
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(network(inputs[at]), targets[at])
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
