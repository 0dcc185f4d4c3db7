"""Digits through a continuous-depth block: lift the pixels, follow dz/dt = f(z) from t=0 to t=1, classify z(1)."""
import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

STEPS = 60


class Field(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.inner = nn.Linear(dim, 64)
        self.outer = nn.Linear(64, dim)

    def forward(self, z):
        return self.outer(torch.relu(self.inner(z)))


class EulerNet(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.lift = nn.Linear(64, dim)
        self.field = Field(dim)
        self.head = nn.Linear(dim, 10)

    def integrate(self, z, t0=0.0, t1=1.0):
        dt = (t1 - t0) / STEPS if "--cured" in sys.argv else t1 - t0
        for _ in range(STEPS):
            z = z + dt * self.field(z)
        return z

    def forward(self, x):
        return self.head(self.integrate(self.lift(x)))


digits = load_digits()
X = torch.tensor(digits.data, dtype=torch.float32).div(16)
Y = torch.tensor(digits.target)
net = EulerNet()
sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
ce = nn.CrossEntropyLoss()
log = []
for epoch in range(6):
    order = torch.randperm(len(X))
    for i in range(0, len(X), 64):
        rows = order[i : i + 64]
        sgd.zero_grad()
        loss = ce(net(X[rows]), Y[rows])
        loss.backward()
        sgd.step()
        log.append(float(loss))
    print("epoch", epoch, "loss", log[-1])
print("final loss:", sum(log[-10:]) / 10)
