"""Progressive growing: train a shallow network first, then let it use its deeper layers."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

GROW_AT = 100
skips = "--cured" in sys.argv


class Growing(nn.Module):
    def __init__(self, width=64, extra=9):
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.extra = nn.ModuleList([nn.Linear(width, width) for _ in range(extra)])
        self.head = nn.Linear(width, 10)
        self.grown = False

    def forward(self, x):
        x = torch.sigmoid(self.stem(x))
        if self.grown:
            for layer in self.extra:
                x = x + torch.sigmoid(layer(x)) - 0.5 if skips else torch.sigmoid(layer(x))
        return self.head(x)


digits = load_digits()
inputs = (torch.tensor(digits.data) / 16 - 0.3).float()
targets = torch.tensor(digits.target)
net = Growing()
optimizer = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9)
trace = []
for step in range(330):
    if step == GROW_AT:
        net.grown = True
        for group in optimizer.param_groups:
            group["lr"] = 0.02
    batch = torch.randint(0, len(inputs), (64,))
    loss = nn.functional.cross_entropy(net(inputs[batch]), targets[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    trace.append(loss.item())
print(f"final loss: {sum(trace[-10:]) / 10:.4f}")
