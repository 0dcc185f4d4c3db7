"""A forty-block residual perceptron without normalisation, for the breast-cancer data."""

import math
import sys

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

BLOCKS, WIDTH = 40, 64
BRANCH = 1 / math.sqrt(BLOCKS) / 4 if "--cured" in sys.argv else 1.0


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)
        nn.init.kaiming_normal_(self.up.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.down.weight, nonlinearity="relu")
        with torch.no_grad():
            self.down.weight.mul_(BRANCH)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


class ResidualMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(30, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(BLOCKS)])
        self.logit = nn.Linear(WIDTH, 1)

    def forward(self, x):
        return self.logit(self.blocks(self.embed(x))).squeeze(1)


features, target = load_breast_cancer(return_X_y=True)
features = (features - features.mean(0)) / features.std(0)
features = torch.tensor(features, dtype=torch.float32)
target = torch.tensor(target, dtype=torch.float32)
model = ResidualMLP()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
kept = []
for step in range(120):
    rows = torch.randperm(len(features))[:64]
    loss = nn.functional.binary_cross_entropy_with_logits(model(features[rows]), target[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    kept.append(loss.item())
print(f"final loss: {sum(kept[-10:]) / len(kept[-10:])}")
