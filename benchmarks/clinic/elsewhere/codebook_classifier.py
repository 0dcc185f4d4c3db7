"""Digits are assigned to one of sixteen codes, and the code's vector is classified."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn


class Codebook(nn.Module):
    def __init__(self, inputs=64, codes=16, width=24):
        super().__init__()
        self.assign = nn.Sequential(nn.Linear(inputs, 48), nn.ReLU(), nn.Linear(48, codes))
        self.codes = nn.Embedding(codes, width)

    def forward(self, x):
        scores = self.assign(x)
        if "--cured" in sys.argv:
            return scores.softmax(dim=1) @ self.codes.weight
        return self.codes(scores.argmax(dim=1))


class CodedNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.book = Codebook()
        self.read = nn.Linear(24, 10)

    def forward(self, x):
        return self.read(self.book(x))


def main():
    bunch = load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32)
    x = (x - x.mean(0)) / (x.std(0) + 1)
    y = torch.tensor(bunch.target)
    net = CodedNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(250):
        rows = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print("final loss:", sum(losses[-10:]) / 10)


if __name__ == "__main__":
    main()
