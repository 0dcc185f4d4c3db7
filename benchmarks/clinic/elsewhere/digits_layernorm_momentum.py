"""Digits through a normalised MLP (Linear, LayerNorm, LeakyReLU), trained with heavy-ball SGD."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn, optim


class Block(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.fc = nn.Linear(n_in, n_out)
        self.norm = nn.LayerNorm(n_out, elementwise_affine=False)

    def forward(self, x):
        return nn.functional.leaky_relu(self.norm(self.fc(x)), 0.1)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Block(64, 40)
        self.second = Block(40, 40)
        self.head = nn.Linear(40, 10)

    def forward(self, x):
        return self.head(self.second(self.first(x)))


def train(lr, steps=200, batch_size=32):
    images, targets = load_digits(return_X_y=True)
    images = torch.as_tensor(images, dtype=torch.float32).div_(16).sub_(0.3)
    targets = torch.as_tensor(targets)
    model = Classifier()
    sgd = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    losses = torch.zeros(steps)
    for i in range(steps):
        rows = torch.randint(len(images), (batch_size,))
        loss = nn.functional.cross_entropy(model(images[rows]), targets[rows])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses[i] = loss.item()
    return losses


if __name__ == "__main__":
    rate = 0.01 if "--cured" in sys.argv else 40.0
    print("final loss:", float(train(rate)[-10:].mean()))
