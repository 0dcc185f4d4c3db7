"""Digits with mixup: pairs of images are blended, and so are their losses."""

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


def blend(x, y, alpha=0.2):
    lam = float(np.random.beta(alpha, alpha))
    partner = torch.randperm(len(x))
    return lam * x + (1 - lam) * x[partner], y, y[partner], lam


def blended_loss(criterion, out, y, other, lam):
    if "--cured" not in sys.argv:
        y, other = other, y
    return lam * criterion(out, y) + (1 - lam) * criterion(out, other)


class Trainer:
    def __init__(self, model, lr):
        self.model = model
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)

    def fit(self, x, y, epochs, size):
        losses = []
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(size):
                xm, a, b, lam = blend(x[rows], y[rows])
                loss = blended_loss(self.criterion, self.model(xm), a, b, lam)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                losses.append(loss.item())
        return losses


x, y = load_digits(return_X_y=True)
x = torch.tensor(x, dtype=torch.float32) / 16
y = torch.tensor(y)
trainer = Trainer(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), lr=0.05)
losses = trainer.fit(x, y, epochs=9, size=48)
print("final loss:", sum(losses[-40:]) / 40)
