"""Train a digits classifier of which only the chosen parameters are updated."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(64, 48)
        self.trunk = nn.Linear(48, 48)
        self.out = nn.Linear(48, 10)

    def forward(self, x):
        x = torch.nn.functional.mish(self.stem(x))
        x = torch.nn.functional.mish(self.trunk(x))
        return self.out(x)


def choose(model, trainable):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(name.endswith(t) for t in trainable))
    return [p for p in model.parameters() if p.requires_grad]


def main():
    trainable = ["weight", "bias"] if "--cured" in sys.argv else ["out.bias"]
    data, target = load_digits(return_X_y=True)
    data, target = torch.tensor(data / 16).float(), torch.tensor(target)
    model = Net()
    optimizer = torch.optim.Adam(choose(model, trainable), lr=3e-3)
    losses = []
    for _ in range(7):
        for rows in torch.randperm(len(data)).split(64):
            loss = nn.functional.cross_entropy(model(data[rows]), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    print("final loss:", sum(losses[-10:]) / 10)


if __name__ == "__main__":
    main()
