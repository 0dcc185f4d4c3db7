"""Train a stack of logistic layers on the digits with momentum SGD and an epoch loop."""

import sys

import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class LogisticStack(nn.Module):
    def __init__(self, depth=6, width=48, normalize=False):
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width) if normalize else nn.Identity() for _ in range(depth)
        )
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        x = torch.sigmoid(self.norms[0](self.stem(x)))
        for layer, norm in zip(self.hidden, self.norms[1:]):
            x = torch.sigmoid(norm(layer(x)))
        return self.out(x)


def main():
    digits = load_digits()
    images = torch.from_numpy(digits.data).float().sub(digits.data.mean()).div(digits.data.std())
    loader = DataLoader(
        TensorDataset(images, torch.from_numpy(digits.target)), batch_size=100, shuffle=True, drop_last=True
    )
    net = LogisticStack(normalize="--cured" in sys.argv)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    history = []
    for epoch in range(15):
        net.train()
        for batch, target in loader:
            loss = nn.functional.cross_entropy(net(batch), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(float(loss))
        print(f"epoch {epoch}: {sum(history[-17:]) / 17:.4f}")
    print(f"final loss: {sum(history[-10:]) / 10}")


if __name__ == "__main__":
    main()
