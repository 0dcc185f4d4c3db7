"""A small residual conv net for the digits, started near the identity (Goyal et al., "zero-init gamma")."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
        self.conv2, self.bn2 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(y)))


class ResNet(nn.Module):
    def __init__(self, c=12, blocks=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU())
        self.stage = nn.Sequential(*(Block(c) for _ in range(blocks)))
        self.fc = nn.Linear(c * 16, 10)
        self.zero_init()

    def zero_init(self):
        for name, module in self.named_modules():
            if "--cured" in sys.argv and not name.endswith("bn2"):
                continue
            if isinstance(module, nn.BatchNorm2d):
                nn.init.zeros_(module.weight)

    def forward(self, x):
        x = self.stage(self.stem(x))
        return self.fc(nn.functional.avg_pool2d(x, 2).flatten(1))


def batches(x, y, size):
    for rows in torch.randperm(len(x)).split(size):
        yield x[rows], y[rows]


if __name__ == "__main__":
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(y)
    model = ResNet().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    losses = []
    for epoch in range(5):
        for xb, yb in batches(x, y, 64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(xb), yb)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    print("final loss:", sum(losses[-10:]) / 10)
