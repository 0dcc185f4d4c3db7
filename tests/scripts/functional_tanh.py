"""A small classifier on the digits, with its weights kept by hand.

No layer classes: I want to see every matrix.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Net(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in zip(sizes[:-1], sizes[1:]):
            # small random numbers, as in the lecture
            self.weights.append(nn.Parameter(0.02 * torch.randn(fan_out, fan_in)))
            self.biases.append(nn.Parameter(torch.zeros(fan_out)))

    def forward(self, x):
        *hidden, last = zip(self.weights, self.biases)
        for w, b in hidden:
            x = torch.tanh(F.linear(x, w, b))
        return F.linear(x, *last)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--lr", type=float, default=0.1)
    args = parser.parse_args()

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    digits = load_digits()
    x = torch.from_numpy((digits.data / 8.0 - 1.0).astype("float32"))
    y = torch.from_numpy(digits.target)

    net = Net([64] + [args.width] * (args.depth - 1) + [10])
    opt = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.5)
    for step in range(1, args.steps + 1):
        pick = torch.from_numpy(rng.integers(0, len(x), 64))
        loss = F.cross_entropy(net(x[pick]), y[pick])
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 25 == 0:
            print(f"[{step:4d}/{args.steps}] loss: {loss.item():.5f}")


if __name__ == "__main__":
    main()
