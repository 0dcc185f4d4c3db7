"""Mixture density network: the answer lies on one of several branches, and x does not say on which."""

import math
import sys

import torch
from torch import nn

COMPONENTS = 4


class MDN(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, 32), nn.Tanh())
        self.weight = nn.Linear(32, COMPONENTS)
        self.mean = nn.Linear(32, COMPONENTS)
        self.log_std = nn.Linear(32, COMPONENTS)
        for head in (self.weight, self.mean, self.log_std):
            if head is self.mean and "--cured" in sys.argv:
                continue
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, x):
        h = self.trunk(x)
        return torch.log_softmax(self.weight(h), dim=1), self.mean(h), self.log_std(h).clamp(-4, 2)


def nll(y, log_weight, mean, log_std):
    z = (y - mean) / log_std.exp()
    log_prob = -0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)
    return -torch.logsumexp(log_weight + log_prob, dim=1).mean()


mdn = MDN()
optimizer = torch.optim.Adam(mdn.parameters(), lr=0.01)
losses = []
for step in range(350):
    x = torch.rand(100, 1) * 2 - 1
    side = torch.randint(0, 2, (100, 1)) * 2 - 1
    y = side * (1.5 + 0.3 * x) + 0.05 * torch.randn(100, 1)
    loss = nll(y, *mdn(x))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
