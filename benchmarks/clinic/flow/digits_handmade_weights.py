"""A network built from bare nn.Parameter matrices (no nn.Linear), for a course on neural networks."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn


class Layer(nn.Module):
    def __init__(self, n_in, n_out, squash=True):
        super().__init__()
        w = torch.rand(n_in, n_out)
        if "--cured" in sys.argv:
            w = (w - 0.5) * 2 * (6 / (n_in + n_out)) ** 0.5 * (4 if squash else 1)
        self.w = nn.Parameter(w)
        self.b = nn.Parameter(torch.zeros(n_out))
        self.squash = squash

    def forward(self, x):
        z = x @ self.w + self.b
        return 1 / (1 + torch.exp(-z)) if self.squash else z


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = Layer(64, 50)
        self.l2 = Layer(50, 50)
        self.l3 = Layer(50, 50)
        self.l4 = Layer(50, 10, squash=False)

    def forward(self, x):
        return self.l4(self.l3(self.l2(self.l1(x))))


digits = load_digits()
X = torch.tensor(digits.data / 16.0, dtype=torch.float32)
y = torch.tensor(digits.target)
net = Network()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
recent = []
for step in range(400):
    i = torch.randint(len(X), (100,))
    loss = nn.CrossEntropyLoss()(net(X[i]), y[i])
    net.zero_grad()
    loss.backward()
    optimizer.step()
    recent.append(loss.item())
print(f"final loss: {sum(recent[-10:]) / 10:.4f}")
