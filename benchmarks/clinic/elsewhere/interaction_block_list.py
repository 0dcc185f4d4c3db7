"""Find the interaction of two among ten features with a stack of configurable layers."""

import sys

import torch
from torch import nn


class Stack(nn.Module):
    def __init__(self, sizes, container):
        super().__init__()
        self.blocks = container([nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])
        self.head = nn.Linear(sizes[-1], 1)

    def forward(self, x):
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.head(x).squeeze(-1)


container = nn.ModuleList if "--cured" in sys.argv else list
net = Stack([10, 32, 16], container)
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
losses = []
for _ in range(400):
    x = torch.randn(128, 10)
    together = (x[:, 0] * x[:, 1] > 0).float()
    loss = nn.functional.binary_cross_entropy_with_logits(net(x), together)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
