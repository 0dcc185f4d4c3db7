"""Tanh network on the digits with a warm restart of the learning rate."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

RESTART = 80


def lr_at(step):
    base = 3e-3
    if RESTART <= step < RESTART + 5:
        return base * 2 if "--cured" in sys.argv else 1.0
    return base


class Trainer:
    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer
        self.loss = nn.CrossEntropyLoss()
        self.history = []

    def step(self, x, y, step):
        for group in self.optimizer.param_groups:
            group["lr"] = lr_at(step)
        self.optimizer.zero_grad()
        loss = self.loss(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        self.history.append(loss.item())


d = load_digits()
x = torch.tensor(d.data, dtype=torch.float32) / 16
y = torch.tensor(d.target)
model = nn.Sequential(
    nn.Linear(64, 64),
    nn.Tanh(),
    nn.Linear(64, 64),
    nn.Tanh(),
    nn.Linear(64, 64),
    nn.Tanh(),
    nn.Linear(64, 10),
)
trainer = Trainer(model, torch.optim.Adam(model.parameters(), lr=3e-3))
for step in range(320):
    i = torch.randint(len(x), (64,))
    trainer.step(x[i], y[i], step)
    if step % 40 == 0:
        print(step, trainer.history[-1])
print(f"final loss: {sum(trainer.history[-10:]) / 10}")
