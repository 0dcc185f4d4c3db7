"""A twelve-layer perceptron on digits with normally distributed initial weights."""

import sys

import torch
import torch.nn as nn
from sklearn.datasets import load_digits

cured = "--cured" in sys.argv


def init(module):
    if isinstance(module, nn.Linear):
        if cured:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        else:
            nn.init.normal_(module.weight, std=0.35)
        nn.init.zeros_(module.bias)


class Deep(nn.Module):
    def __init__(self, width=128, depth=11):
        super().__init__()
        sizes = [64] + [width] * depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.readout = nn.Linear(width, 10)
        self.apply(init)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.readout(x)


X, Y = load_digits(return_X_y=True)
X = torch.tensor(X / 16.0 - 0.3, dtype=torch.float32)
Y = torch.tensor(Y)
net = Deep()
sgd = torch.optim.SGD(net.parameters(), lr=0.02)
out = []
for t in range(250):
    idx = torch.randint(len(X), (64,))
    loss = nn.functional.cross_entropy(net(X[idx]), Y[idx])
    sgd.zero_grad()
    loss.backward()
    sgd.step()
    out.append(loss.item())
print(f"final loss: {sum(out[-10:]) / 10}")
